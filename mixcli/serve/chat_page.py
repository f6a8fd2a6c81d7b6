"""The chat page of `serve --ui`: its files, and the headers that keep a browser to this server while it shows them."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixcli.serve.refusal import Header

FOLDER = Path(__file__).with_name("page")
INDEX = "index.html"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
}
# scripts, styles and requests of this origin only; nothing inline, and no other page may show this one in a frame
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SECURITY: tuple[Header, ...] = (
    (b"content-security-policy", POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


@dataclass(frozen=True)
class PageFile:
    """A file of the page; `etag` changes with its bytes."""

    body: bytes
    content_type: bytes
    etag: str

    def answer(self, known: str | None) -> tuple[int, list[Header], bytes]:
        """Return status, headers and body; `known` is the If-None-Match of a browser that may have the file already."""
        headers = [
            (b"cache-control", b"no-cache"),  # kept by a browser, which asks each time whether it has changed
            (b"etag", self.etag.encode()),
            *SECURITY,
        ]
        if known is not None and (known.strip() == "*" or self.etag in _etags(known)):
            return 304, headers, b""
        length = b"%d" % len(self.body)
        return 200, [(b"content-type", self.content_type), (b"content-length", length), *headers], self.body


def _etags(header: str) -> Iterator[str]:
    """Yield the tags of If-None-Match; a proxy that compresses files marks theirs as weak."""
    for tag in header.split(","):
        yield tag.strip().removeprefix("W/")


def page_files(folder: Path = FOLDER) -> Mapping[str, PageFile]:
    """Return the files of the page by the path that each has on the port; the page itself is at /."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            place = "/" if path.name == INDEX else f"/{folder.name}/{path.name}"
            found[place] = PageFile(body, TYPES[path.suffix], etag)
    return found
