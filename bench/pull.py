"""One large file from a loopback hub: mixcli's verified, resumable download beside huggingface_hub's plain one, in turn.

    python -m bench.pull [--size GB] [--pairs N]

The server is a process of its own that sends with sendfile. Each download is a process with an empty cache; its time is the transfer
itself, from the first request for metadata to the file in the cache, without start-up. mixcli hashes every byte meanwhile,
huggingface_hub none.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from bench.estimate import Numbers, ratio, side_medians
from bench.turns import N_PAIRS, Side, all_turns

REPO, NAME, COMMIT = "bench/large", "large.gguf", "e" * 40

THEIRS = """
import sys, time
from huggingface_hub import hf_hub_download
began = time.perf_counter()
path = hf_hub_download(sys.argv[1], sys.argv[2])
print(time.perf_counter() - began, path)
"""
OURS = """
import sys, time
from mixcli.pull import download, hub_client as remote
began = time.perf_counter()
repo = remote.look(sys.argv[1])
path = download.fetch(repo, repo.by_name[sys.argv[2]], lambda *_: None)
print(time.perf_counter() - began, path)
"""


class Handler(BaseHTTPRequestHandler):
    """Hub and storage in one: model info, HEAD with the Hub's headers, GET with ranges."""

    protocol_version = "HTTP/1.1"
    file: Path
    sha256: str
    other: str

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        size = self.file.stat().st_size
        path = urlsplit(self.path).path
        if path.startswith("/api/"):
            sibling = {
                "rfilename": NAME,
                "size": size,
                "lfs": {"sha256": self.sha256, "size": size, "pointerSize": 1},
            }
            self.answer(json.dumps({"id": REPO, "sha": COMMIT, "siblings": [sibling]}).encode())
        elif "/resolve/" in path:
            self.send_response(302)
            self.send_header("Location", f"{self.other}/blob")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Etag", f'"{self.sha256}"')
            self.send_header("X-Linked-Size", str(size))
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file(size)

    do_HEAD = do_GET

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, size: int) -> None:
        start, stop = 0, size
        if said := self.headers.get("Range"):
            first, _, last = said.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else size, size)
        self.send_response(206 if said else 200)
        if said:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        self.wfile.flush()
        with self.file.open("rb") as file:
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)


def serve(file: Path, sha256: str) -> None:
    """Run both servers; says the Hub's address on stdout."""
    storage = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Handler.file, Handler.sha256 = file, sha256
    Handler.other = f"http://127.0.0.1:{storage.server_port}"
    threading.Thread(target=storage.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{hub.server_port}", flush=True)
    hub.serve_forever()


def make(path: Path, size: int) -> str:
    """Write a file of random bytes; gives its SHA-256."""
    digest, block = hashlib.sha256(), os.urandom(1 << 24)
    with path.open("wb") as file:
        for number in range(0, size, len(block)):
            piece = (number.to_bytes(8, "little") + block[8:])[: size - number]
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def measure(code: str, address: str, folder: Path, size: int) -> Numbers:
    """Run one download of so many bytes into an empty cache; return its rate."""
    home = Path(tempfile.mkdtemp(dir=folder))
    env = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", code, REPO, NAME], env=env, stdout=subprocess.PIPE, text=True, check=True
    )
    shutil.rmtree(home)
    return {"MB/s": size / 1e6 / float(done.stdout.split()[0])}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=float, default=2.0, help="gigabytes")
    parser.add_argument("--pairs", type=int, default=N_PAIRS)
    parser.add_argument("--folder", type=Path, help="where to work; default: the temporary folder")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.serve:
        serve(Path(said.serve[0]), said.serve[1])
        return
    size = int(said.size * 1e9)
    with tempfile.TemporaryDirectory(dir=said.folder) as place:
        folder = Path(place)
        sha256 = make(folder / NAME, size)
        server = subprocess.Popen(
            [sys.executable, "-m", "bench.pull", "--serve", str(folder / NAME), sha256],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            names = {"huggingface_hub, unverified": THEIRS, "mixcli, verified": OURS}
            sides = [
                Side(name, partial(measure, code, address, folder, size)) for name, code in names.items()
            ]
            rounds = all_turns(sides, said.pairs)
        finally:
            server.kill()
            server.wait()
    for name, numbers in side_medians(rounds).items():
        print(f"{name:30} median {numbers['MB/s']:7.0f} MB/s")
    theirs, ours = ((name, "MB/s") for name in names)
    found = ratio(rounds, ours, theirs)
    low, high = found.ends or (found.value, found.value)
    kind = "" if found.is_interval else ", range"
    disturbed = ", disturbed by other programs" if found.is_disturbed else ""
    print(
        f"mixcli / huggingface_hub: {found.value:.2f} ({low:.2f} to {high:.2f}{kind}, pairs: {found.n_pairs}{disturbed})"
    )


if __name__ == "__main__":
    main()
