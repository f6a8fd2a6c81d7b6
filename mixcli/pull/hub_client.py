"""A repository of the Hugging Face Hub: its files, and their bytes from any offset.

huggingface_hub asks, logs in and names the errors. Responses are untrusted input: names, commits and etags are checked
before anything is done with them, and a token goes to the Hub's own origin only, whatever a redirect or a listing says.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url, set_client_factory
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import build_hf_headers, get_session, get_token, hf_raise_for_status, logging

from mixcli import __version__
from mixcli.errors import IntegrityError, UsageError
from mixcli.pull.hub_environment import MAX_TOKEN_FILE, check_token
from mixcli.pull.hub_errors import Failure, Place
from mixcli.pull.hub_http import HubClient, Mismatch, Untrusted, is_address, joined, whole
from mixcli.pull.retry import RetryPolicy
from mixcli.system.offline import is_offline

MAX_FILES = 20_000
MAX_HOPS = 5
FIRST_READ = 1 << 16  # bytes; most headers of safetensors files are shorter
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_RANGE = re.compile(r"bytes (?P<start>\d{1,18})-(?P<last>\d{1,18})/(?P<size>\d{1,18}|\*)", re.ASCII)
_DRIVE_OR_STREAM = re.compile(r'[:\\*?"<>|]')
T = TypeVar("T")


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its plain relative name, its bytes, and its etag: SHA-256 for a large file, git's SHA-1 else."""

    name: str
    size: int
    etag: str


@dataclass(frozen=True)
class RemoteRepo:
    """A repository at one commit. `license` is what its card says, `gated` whether its terms must be accepted first."""

    repo: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]
    license: str | None = None
    license_link: str | None = None
    gated: bool = False
    tags: tuple[str, ...] = field(default=(), repr=False)

    @cached_property
    def by_name(self) -> dict[str, RemoteFile]:
        return {file.name: file for file in self.files}

    def place(self, file: RemoteFile | None = None) -> Place:
        """Name this repository, or a file of it, for an error."""
        return Place(self.repo, self.revision, file.name if file else "")


def is_plain_path(name: object) -> bool:
    """Return whether a file's name stays inside its folder and has printable characters only."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 512
        and name.isprintable()
        and not _DRIVE_OR_STREAM.search(name)
        and all(part not in {"", ".", ".."} and len(part.encode()) <= 255 for part in name.split("/"))
    )


def look(repo: str, revision: str = "main") -> RemoteRepo:
    """Ask the Hub for the files of a repository; retry transient errors.

    Raises NotReachable or UsageError in words, IntegrityError for an answer that cannot be trusted.
    """
    _guard()
    check_token(_token(), "the token of `hf auth login`")
    place = Place(repo, revision)
    try:
        info = persistently(
            lambda: HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=_timeout()),
            place,
            first=True,
        )
    except HFValidationError:
        raise UsageError(f"{repo!r} is not a valid repository name; use the form org/name") from None
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise IntegrityError(
            f"{place.host} did not return a list of files; check for a login page or a proxy"
        ) from error
    commit = info.sha
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise IntegrityError(
            f"the Hub returned the invalid commit {_said(commit)} for {repo}; check HF_ENDPOINT and the proxy"
        )
    siblings = info.siblings or []
    names = [sibling.rfilename for sibling in siblings]
    if len(set(map(str, names))) < len(names):
        raise IntegrityError(f"{repo} lists a file twice; choose another repository")
    if len(siblings) > MAX_FILES:
        raise IntegrityError(f"{repo} has {len(siblings):,} files; the limit is {MAX_FILES:,}")
    said: Any = getattr(info.card_data, "to_dict", dict)()
    card = said if isinstance(said, dict) else {}
    named = card.get("license_name") if card.get("license") == "other" else card.get("license")
    return RemoteRepo(
        repo,
        revision,
        commit,
        tuple(_file(sibling, repo) for sibling in siblings),
        named if isinstance(named, str) else None,
        _link(card.get("license_link")),
        bool(info.gated),
        tuple(tag for tag in info.tags or () if isinstance(tag, str)),
    )


def _file(sibling: Any, repo: str) -> RemoteFile:
    """Check one entry of a listing."""
    name, size = sibling.rfilename, sibling.lfs.size if sibling.lfs else sibling.size
    etag = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if not is_plain_path(name):
        raise IntegrityError(
            f"{repo} lists a file called {ascii(name)[:80]}, which is not a safe name; choose another repository"
        )
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 1 << 50:
        raise IntegrityError(
            f"{repo}: {name} has an impossible size ({_said(size)}); choose another repository"
        )
    if not isinstance(etag, str) or not _ETAG.fullmatch(etag):
        raise IntegrityError(
            f"{repo}: {name} has the etag {_said(etag)}, which is not a checksum; choose another repository"
        )
    return RemoteFile(name, size, etag)


def _said(value: object) -> str:
    """Return a value from a server, as a message shows it."""
    return "nothing" if value is None else ascii(value)[:80]


def _link(value: object) -> str | None:
    return value if isinstance(value, str) and value.startswith("https://") and value.isprintable() else None


def locate(repo: RemoteRepo, file: RemoteFile) -> str:
    """Ask where a file's bytes are; return an address, often a signed one of another host that works for some minutes.

    Raises IntegrityError when the file is no longer the listed one, else whatever huggingface_hub raises.
    """
    url = hf_hub_url(repo.repo, file.name, revision=repo.commit)
    try:
        found = get_hf_file_metadata(
            url, timeout=_timeout(), library_name="mixcli", library_version=__version__
        )
    except (ValueError, httpx2.InvalidURL) as error:  # of urllib, for an address in a redirect
        raise Untrusted("redirects to an invalid address", request=httpx2.Request("HEAD", url)) from error
    if found.commit_hash is None or found.etag is None:
        raise IntegrityError(
            f"{repo.place().host} returned {file.name} without the headers of a Hub; check for a login page or a proxy"
        )
    if found.commit_hash != repo.commit or found.etag != file.etag or found.size not in {None, file.size}:
        raise IntegrityError(
            f"{repo.repo}: the Hub lists {file.name} with checksum {file.etag[:16]}… and {file.size:,} bytes but serves "
            f"{ascii(found.etag)[:24]} with {_said(found.size)}; check HF_ENDPOINT and the proxy"
        )
    return joined(url, found.location)


@contextmanager
def stream(url: str, start: int, stop: int) -> Iterator[httpx2.Response]:
    """Open bytes [start, stop) of an address for reading; redirects are followed, tokens stay with the Hub.

    The response has status 206, or 200 where the server ignores ranges. Raises what httpx2 and huggingface_hub raise.
    """
    session = get_session()
    for _ in range(MAX_HOPS):
        headers = {
            **build_hf_headers(library_name="mixcli", library_version=__version__),
            "Range": f"bytes={start}-{stop - 1}",
            "Accept-Encoding": "identity",
        }
        request = session.build_request(
            "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
        response = session.send(request, stream=True, follow_redirects=False)
        try:
            if response.has_redirect_location:
                url = joined(url, response.headers["Location"])
                continue
            if response.is_error:
                hf_raise_for_status(whole(response))
            _check_is_file(response)
            yield response
            return
        finally:
            response.close()
    raise httpx2.TooManyRedirects(f"more than {MAX_HOPS} redirects", request=request)


def _check_is_file(response: httpx2.Response) -> None:
    """Raise for an answer that cannot be the bytes of a file as they are."""
    if response.status_code not in {200, 206}:
        raise Untrusted(f"returned {response.status_code} instead of a file", request=response.request)
    if response.headers.get("Content-Encoding", "identity").strip().lower() not in {"", "identity"}:
        raise Untrusted("compresses a file that was requested uncompressed", request=response.request)


def offset_of(response: httpx2.Response, start: int, stop: int, size: int) -> int:
    """Return how many bytes of an answer must be passed over to be at `start`: none where the server kept to the range.

    Raises Mismatch for another range, or a file of another size.
    """
    length = response.headers.get("Content-Length", "")
    if response.status_code != 206:
        if length not in {"", str(size)}:
            raise Mismatch(f"sends {_count(length)} of a file of {size:,}", request=response.request)
        return start
    said = response.headers.get("Content-Range", "")
    match = _RANGE.fullmatch(said.strip())
    if (
        not match
        or int(match["start"]) != start
        or not start <= int(match["last"]) < stop
        or match["size"] not in {"*", str(size)}
        or length not in {"", str(int(match["last"]) + 1 - start)}
    ):
        raise Mismatch(
            f"sends {ascii(said)[:60]} for bytes {start}-{stop - 1} of {size:,}", request=response.request
        )
    return 0


def _count(length: str) -> str:
    return f"{int(length):,} bytes" if length.isascii() and length.isdigit() and len(length) < 19 else "bytes"


def persistently(call: Callable[[], T], place: Place, *, first: bool = False) -> T:
    """Make a request until it works or patience ends, sooner when it is the `first` one; its failure is said in words."""
    patience = RetryPolicy(place, first=first)
    while True:
        try:
            return call()
        except Failure as error:
            patience.failed(error)


class RemoteReader:
    """A remote file as the header readers want it: bytes at an offset, each asked for by Range and only once.

    What a part file holds already is taken from there. `head` is the beginning of the file as far as it was read without a gap,
    so that a download need not fetch it again. It doubles with each request: a header of n MiB takes about log n of them, however it is read.
    """

    def __init__(self, repo: RemoteRepo, file: RemoteFile, local: Path | None = None) -> None:
        self._repo, self._file, self._local = repo, file, local
        self._url: str | None = None
        self.head = b""

    @property
    def size(self) -> int:
        return self._file.size

    def read_at(self, offset: int, n: int) -> bytes:
        """Return bytes [offset, offset + n)."""
        here, end = len(self.head), offset + n
        if offset > here:
            return self._read(offset, end, end)
        if end > here:
            self.head += self._read(here, end, min(self.size, max(end, FIRST_READ, 2 * here)))
        return self.head[offset:end]

    def _read(self, start: int, stop: int, window: int) -> bytes:
        """Return bytes [start, stop) at least, and up to `window` where that costs no request more."""
        found = self._from_disk(start, window - start)
        if (start := start + len(found)) < stop:
            found += persistently(lambda: self._fetch(start, window), self._repo.place(self._file))
        return found

    def _from_disk(self, offset: int, n: int) -> bytes:
        try:
            with (self._local or Path(os.devnull)).open("rb") as file:
                file.seek(offset)
                return file.read(n)
        except FileNotFoundError:
            return b""

    def _fetch(self, start: int, stop: int) -> bytes:
        url = self._url or locate(self._repo, self._file)
        self._url = None  # asked for again after a failure
        with stream(url, start, stop) as response:
            skip = offset_of(response, start, stop, self.size)
            found = bytearray()
            for chunk in response.iter_raw(1 << 16):
                passed = min(skip, len(chunk))
                skip -= passed
                found += memoryview(chunk)[passed:]
                if len(found) >= stop - start:
                    break
        if len(found) < stop - start:
            raise httpx2.RemoteProtocolError("the connection ended early", request=response.request)
        self._url = url
        return bytes(found[: stop - start])


def _guard() -> None:
    """Let every request of huggingface_hub go through a client that knows where tokens may go and how long to wait."""
    logging.set_verbosity_error()  # its warnings show addresses with signatures
    set_client_factory(lambda: HubClient(_check_request, _timeout()))


def _token() -> str:
    """Return the token that will be sent; raises UsageError for one that cannot be read."""
    path = Path(constants.HF_TOKEN_PATH)
    try:
        if path.is_file() and path.stat().st_size > MAX_TOKEN_FILE:
            raise UsageError(f"{path} is far larger than a token; log in again with `hf auth login`")
        return get_token() or ""
    except ValueError:
        raise UsageError(f"{path} has no token; log in again with `hf auth login`") from None


def _check_request(request: httpx2.Request) -> None:
    if constants.is_offline_mode() or is_offline():
        raise OfflineModeIsEnabled("offline")
    _check_scheme(request)
    if not is_hub(str(request.url)):
        request.headers.pop("authorization", None)
        request.headers.pop("cookie", None)
    if not request.extensions.get("timeout", {}).get("read"):
        request.extensions["timeout"] = httpx2.Timeout(_timeout()).as_dict()


def _check_scheme(request: httpx2.Request) -> None:
    allowed = {"https"} if constants.ENDPOINT.startswith("https:") else {"http", "https"}
    if request.url.scheme not in allowed:
        raise IntegrityError(
            f"the Hub redirects to an address that is not {' or '.join(sorted(allowed))}; nothing was downloaded from there"
        )
    if not is_address(request.url):
        raise Untrusted("redirects to an invalid address", request=request)


def is_hub(url: str) -> bool:
    """Return whether an address is the Hub's own, where a token may go."""
    return _origin(url) == _origin(constants.ENDPOINT)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    return (
        parts.scheme,
        (parts.hostname or "").lower(),
        parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0),
    )


def _timeout() -> float:
    return float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or constants.HF_HUB_ETAG_TIMEOUT)
