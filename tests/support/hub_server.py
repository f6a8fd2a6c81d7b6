"""A stand-in for the Hugging Face Hub on loopback: the Hub on one port, its file storage on another, faults on demand, and a log.

It speaks what the real client asks for: model info with file sizes and checksums, HEAD and GET of resolve/ with the headers X-Repo-Commit,
X-Linked-Etag and X-Linked-Size, a redirect with a signed address for large files, X-Error-Code for refusals.
"""

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".gguf", ".safetensors", ".bin")
SIGNATURE = "X-Amz-Signature=topsecret0123456789"
PIECE = 1 << 16


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repo:
    """A repository: its files, and how it answers."""

    files: dict[str, bytes]
    commit: str = ""
    license: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False
    listed: list[dict[str, Any]] | None = None  # what the listing says, where it lies
    etags: dict[str, str] = field(default_factory=dict)  # what HEAD says, where it lies
    sizes: dict[str, int] = field(default_factory=dict)  # what all say, where they lie

    def __post_init__(self) -> None:
        self.commit = self.commit or hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()
        self.sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}

    def is_large(self, name: str) -> bool:
        return name.endswith(LARGE)

    def etag(self, name: str) -> str:
        return self.etags.get(name) or (
            self.sha256[name] if self.is_large(name) else git_sha1(self.files[name])
        )

    def size(self, name: str) -> int:
        return self.sizes.get(name, len(self.files[name]))

    def siblings(self) -> list[dict[str, Any]]:
        if self.listed is not None:
            return self.listed
        return [self.sibling(name) for name in self.files]

    def sibling(self, name: str) -> dict[str, Any]:
        size = self.size(name)
        entry: dict[str, Any] = {"rfilename": name, "size": size, "blobId": git_sha1(self.files[name])}
        if self.is_large(name):
            entry["lfs"] = {"sha256": self.sha256[name], "size": size, "pointerSize": 134}
        return entry


@dataclass
class Seen:
    """One request as it came, and what was sent back; `sent` counts body bytes."""

    server: str
    method: str
    path: str
    query: str
    range: str
    token: str
    status: int = 0
    sent: int = 0

    @property
    def start(self) -> int:
        return int(self.range.removeprefix("bytes=").split("-")[0]) if self.range else 0

    @property
    def length(self) -> int:
        """The bytes that were asked for."""
        return int(self.range.split("-")[1]) + 1 - self.start if self.range else 0


@dataclass
class Fault:
    """What goes wrong: `act` gets the handler and gives True when it has answered; `times` requests that `hits` matches."""

    hits: Callable[[Seen], bool]
    act: Callable[["Handler"], bool]
    times: int = 1


class StandIn:
    """Both servers, their repositories, the faults that wait, and the log."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.log: list[Seen] = []
        self.tokens = {"hf_goodtoken"}
        self.pause = 0.0  # seconds after every piece of 64 KiB
        self.lock = threading.Lock()
        self.hub = Server(self, "hub")
        self.cdn = Server(self, "cdn")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.hub.server_port}"

    @property
    def cdn_url(self) -> str:
        return f"http://127.0.0.1:{self.cdn.server_port}"

    def add(self, name: str, files: Mapping[str, bytes], **how: Any) -> Repo:
        self.repos[name] = Repo(dict(files), **how)
        return self.repos[name]

    def fault(
        self, act: Callable[["Handler"], bool], hits: Callable[[Seen], bool] | None = None, times: int = 1
    ) -> None:
        """Let the next matching requests go wrong; downloads from the storage when nothing else is said."""
        self.faults.append(Fault(hits or is_download, act, times))

    def downloads(self) -> list[Seen]:
        """Give the requests for large files' bytes, in order."""
        return [seen for seen in self.log if is_download(seen)]

    def next_fault(self, seen: Seen) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.hits(seen):
                    fault.times -= 1
                    return fault
        return None


def is_download(seen: Seen) -> bool:
    return seen.server == "cdn" and seen.method == "GET"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, standin: StandIn, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.standin, self.name = standin, name
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that leave are part of the plan."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        super().setup()

    def log_message(self, format: str, *args: object) -> None:
        """The log is a list."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.seen = Seen(
            self.server.name,
            self.command,
            unquote(parts.path),
            parts.query,
            self.headers.get("Range", ""),
            token,
        )
        self.server.standin.log.append(self.seen)
        self.cut_after: int | None = None
        self.ignore_range = self.flip = False
        fault = self.server.standin.next_fault(self.seen)
        if fault and fault.act(self):
            return
        if self.server.name == "cdn":
            self.serve_blob()
        elif self.seen.path.startswith("/api/models/"):
            self.serve_info()
        else:
            self.serve_resolve()

    do_HEAD = do_GET

    # answers

    def reply(self, status: int, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bool:
        self.seen.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def refuse(self, status: int, code: str) -> bool:
        return self.reply(status, {"X-Error-Code": code, "X-Error-Message": code}, b'{"error":"no"}')

    def repo(self, name: str) -> Repo | None:
        found = self.server.standin.repos.get(name)
        if self.seen.token and self.seen.token not in self.server.standin.tokens:
            self.reply(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
            return None
        if found is None or (found.private and not self.seen.token):
            self.refuse(404 if self.seen.token else 401, "RepoNotFound")
            return None
        return found

    def serve_info(self) -> None:
        name, _, revision = self.seen.path.removeprefix("/api/models/").partition("/revision/")
        if (found := self.repo(name)) is None:
            return
        if revision and revision not in {"main", "v1", found.commit}:
            self.refuse(404, "RevisionNotFound")
            return
        card = {"license": found.license} if found.license else {}
        info = {
            "id": name,
            "sha": found.commit,
            "gated": "auto" if found.gated else False,
            "private": found.private,
            "tags": [],
            "cardData": card,
            "siblings": found.siblings(),
        }
        self.reply(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def serve_resolve(self) -> None:
        name, _, rest = self.seen.path.removeprefix("/").partition("/resolve/")
        if (found := self.repo(name)) is None:
            return
        revision, _, file = rest.partition("/")
        if found.gated and not self.seen.token:
            self.refuse(401, "GatedRepo")
        elif revision not in {"main", "v1", found.commit}:
            self.refuse(404, "RevisionNotFound")
        elif file not in found.files:
            self.refuse(404, "EntryNotFound")
        else:
            data, etag = found.files[file], found.etag(file)
            headers = {"X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
            if found.is_large(file):
                where = f"{self.server.standin.cdn_url}/{name}/{found.sha256[file]}?{SIGNATURE}"
                linked = {
                    "X-Linked-Etag": f'"{etag}"',
                    "X-Linked-Size": str(found.size(file)),
                    "Location": where,
                }
                self.reply(302, {**headers, **linked})
            else:
                self.send_data(data, {**headers, "ETag": f'"{etag}"'})

    def serve_blob(self) -> None:
        name, _, digest = self.seen.path.removeprefix("/").rpartition("/")
        if SIGNATURE not in self.seen.query:
            self.reply(403)
            return
        found = self.server.standin.repos[name]
        file = next(file for file, known in found.sha256.items() if known == digest)
        self.send_data(found.files[file], {"ETag": f'"{digest}"'}, found.size(file))

    def send_data(self, data: bytes, headers: dict[str, str], size: int = 0) -> None:
        """Send a file, or the range that was asked for; `size` is what it is said to have."""
        start, stop = 0, len(data)
        status = 200
        if self.seen.range and not self.ignore_range:
            first, _, last = self.seen.range.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(int(last) + 1 if last else len(data), len(data)), 206
            if start >= len(data):
                self.reply(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size or len(data)}"
        self.seen.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        view = memoryview(data)
        if self.flip:
            changed = bytearray(data)
            changed[-1] ^= 1
            view = memoryview(changed)
        end = stop if self.cut_after is None else min(stop, start + self.cut_after)
        pause = self.server.standin.pause
        for at in range(start, end, PIECE):
            piece = view[at : min(at + PIECE, end)]
            self.wfile.write(piece)
            self.seen.sent += len(piece)
            if pause:
                time.sleep(pause)
        if end < stop:
            self.close_connection = True

    # faults

    def reset(self) -> None:
        """End the connection by a TCP reset."""
        self.wfile.flush()
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.close()
        self.close_connection = True


def status(code: int, **headers: str) -> Callable[[Handler], bool]:
    """Answer with a status instead."""
    return lambda handler: handler.reply(
        code, {name.replace("_", "-"): value for name, value in headers.items()}
    )


def cut(after: int) -> Callable[[Handler], bool]:
    """Close the connection after so many bytes of the body."""

    def act(handler: Handler) -> bool:
        handler.cut_after = after
        return False

    return act


def reset(after: int) -> Callable[[Handler], bool]:
    """Reset the connection after so many bytes."""

    def act(handler: Handler) -> bool:
        handler.cut_after = after
        serve = handler.serve_blob if handler.server.name == "cdn" else handler.serve_resolve
        serve()
        time.sleep(0.1)  # what was sent shall arrive
        handler.reset()
        return True

    return act


def stall(seconds: float) -> Callable[[Handler], bool]:
    """Say nothing for so long, then close."""

    def act(handler: Handler) -> bool:
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return act


def range_ignored(handler: Handler) -> bool:
    handler.ignore_range = True
    return False


def wrong_bytes(handler: Handler) -> bool:
    handler.flip = True
    return False


@contextmanager
def running() -> Iterator[StandIn]:
    standin = StandIn()
    try:
        yield standin
    finally:
        for server in (standin.hub, standin.cdn):
            server.shutdown()
            server.server_close()
