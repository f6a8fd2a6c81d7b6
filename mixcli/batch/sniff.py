"""Inspect the first bytes of an input: refuse what is not text, and distinguish JSON from plain lines."""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, BinaryIO, Literal

from mixcli.errors import UsageError
from mixcli.system.text import SAMPLE, not_text

HEAD = SAMPLE  # bytes that are looked at before anything is read
# what is text, but not of records; --format lines reads it anyway
MARKUP = (
    (re.compile(rb"\s*<(!doctype|html)\b", re.IGNORECASE), "a web page"),
    (re.compile(rb"\s*<\?xml\b"), "XML"),
    (re.compile(rb"(%YAML|---\s*\n)"), "YAML"),
    (re.compile(rb"\s*\[?\{'[^'\n]{1,80}':"), "in Python's notation"),
)
SUFFIXES = {
    ".yaml": "YAML",
    ".yml": "YAML",
    ".xml": "XML",
    ".html": "a web page",
    ".toml": "TOML",
    ".ipynb": "a notebook",
}
# names that a header has and no text begins with
HEADERS = {
    "id",
    "text",
    "label",
    "title",
    "subject",
    "body",
    "content",
    "message",
    "comment",
    "review",
    "category",
    "question",
} | {
    "answer",
    "prompt",
    "name",
    "description",
    "email",
    "url",
    "date",
    "input",
    "output",
    "sentence",
    "gold",
    "class",
}
_COMPLETE = re.compile(r'"(?:[^"\\]++|\\.)*+"')
_OPENS = re.compile(r'\[\s*($|[{"\[])|\{\s*($|")')
_BROKEN = re.compile(r'\[\s*[{"]|\{\s*"')  # JSON lines of which the first one is broken

Shape = Literal["document", "lines", ""]


class Peeked:
    """A stream whose first bytes were read ahead; `is_whole` is true if they are all."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.head, self.is_whole = _head(stream)
        self._left = self.head

    def read1(self, size: int = HEAD, /) -> bytes:
        if self._left:
            piece, self._left = self._left[:size], self._left[size:]
            return piece
        return self._stream.read1(size)  # type: ignore[attr-defined,no-any-return]


def _head(stream: BinaryIO) -> tuple[bytes, bool]:
    """Read what is looked at; of a pipe no more than its first line, so that its first answer waits for nothing."""
    head = b""
    is_slow = _is_slow(stream)
    while len(head) < HEAD:
        piece = stream.read1(HEAD - len(head))  # type: ignore[attr-defined]
        if not piece:
            return head, True
        head += piece
        if is_slow and re.search(rb"\S[^\r\n]*[\r\n]", head):
            break
    return head, False


def _is_slow(stream: BinaryIO) -> bool:
    try:
        return not stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError:  # bytes in memory
        return False


def check_text(head: bytes, name: str, format_: str | None) -> None:
    """Raise UsageError where an input cannot have records: no text, another encoding, another kind of text."""
    shown = "the input" if name in ("", "-") else name
    if why := not_text(head, of_lines=True):
        raise UsageError(f"{shown} {why}")
    if format_ is None:
        _check_markup(head, name, shown)


def _check_markup(head: bytes, name: str, shown: str) -> None:
    kinds = [what for pattern, what in MARKUP if pattern.match(head)]
    what = SUFFIXES.get(Path(name).suffix.lower()) or (kinds[0] if kinds else "")
    if what:
        raise UsageError(
            f"{shown} is {what}, which batch cannot read; convert it to JSON lines or CSV, or pass --format lines to send each line as text"
        )


def first_line(head: bytes, is_whole: bool) -> str | None:
    """Return the first line that is not blank; None where it is longer than what was looked at."""
    text = head.decode("utf-8-sig", "replace").lstrip()
    lines = text.splitlines()
    if not lines:
        return ""
    return lines[0].rstrip() if len(lines) > 1 or is_whole or text.endswith(("\n", "\r")) else None


def json_shape(head: bytes, is_whole: bool) -> Shape:
    """Distinguish a JSON document (an array, or values over several lines) from JSON lines, and from what is not JSON at all.

    Raises UsageError for lines that are arrays: their values have no names.
    """
    line = first_line(head, is_whole)
    if line is None:
        return (
            "document"
            if re.match(rb"(\xef\xbb\xbf)?\s*\[\s*[{\"\[]", head)
            else "lines"
            if re.match(rb"(\xef\xbb\xbf)?\s*\{\s*\"", head)
            else ""
        )
    value = value_of(line)
    if isinstance(value, list):
        rest = head.decode("utf-8-sig", "replace").lstrip()[len(line) :].lstrip()
        if isinstance(value_of(rest.split("\n", 1)[0].strip()), list):
            raise UsageError(
                "each line of the input is a JSON array, whose values have no names; make each an object"
            )
        return "document"
    if isinstance(value, dict):
        return "lines"
    bare = _COMPLETE.sub("", line)
    is_open = '"' not in bare and sum(bare.count(sign) for sign in "[{") > sum(
        bare.count(sign) for sign in "]}"
    )
    return "document" if is_open and _OPENS.match(line) else "lines" if _BROKEN.match(line) else ""


def check_no_table(head: bytes, is_whole: bool) -> None:
    """Raise UsageError where lines without a named format begin as a table does: their header would be asked about."""
    line = first_line(head, is_whole) or ""
    for separator in (",", ";", "\t", "|"):
        cells = [cell.strip('"').lower() for cell in line.split(separator)]
        if (
            len(cells) > 1
            and len(set(cells)) == len(cells)
            and all(map(str.isidentifier, filter(None, cells)))
            and HEADERS & set(cells)
        ):
            raise UsageError(
                f"the first line of the input, {line[:60]!r}, looks like a table header; pass --format csv, or --format lines to send each line as text"
            )


def is_one(head: bytes, is_whole: bool) -> bool:
    """Return whether a .json file may be one document: not where a line that is an object is followed by another line."""
    line = first_line(head, is_whole)
    if line is None:
        return True
    rest = head.decode("utf-8-sig", "replace").lstrip()[len(line) :].strip()
    return line[:1] in ("[", "{") and not (rest and isinstance(value_of(line), dict))


def value_of(text: str) -> Any:
    """Return the value of JSON text, None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
