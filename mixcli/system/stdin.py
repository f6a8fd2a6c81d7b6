"""Read text from pipes and files."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.text import SAMPLE, clean, n_bad_bytes, not_a_file, not_text, shown

MAX_BYTES = 1 << 28  # of a text that is read whole
NO_END = "reading {} until it ends; add < /dev/null if there is no input"
MAX_SMALL = 1 << 20  # bytes of a template, schema, grammar or persona


def is_piped() -> bool:
    """Return whether something is piped in; a terminal and a closed stdin are nothing."""
    return sys.stdin is not None and not sys.stdin.closed and not sys.stdin.isatty()


def stream() -> BinaryIO:
    """Return the pipe for a thread to read, and never close it: both wait for a thread that waits in it.

    It is a reader of its own because Python cannot end while a thread waits in that of sys.stdin.
    """
    return open(sys.stdin.fileno(), "rb", closefd=False)


def piped_text() -> str:
    """Return the whole piped text; empty without a pipe."""
    if not is_piped():
        return ""
    try:
        with console.if_slow(NO_END.format("stdin")):
            return _text_of(sys.stdin.buffer, "the piped text")
    except OSError as error:
        raise UsageError(
            f"stdin cannot be read: {error.strerror}; pipe text in, or pass a file with -f"
        ) from None


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file to read; a FIFO is waited for until another program opens it for writing, with a note after some seconds."""
    with console.if_slow(f"waiting for a program that writes to the pipe {shown(path)}"):
        file = path.open("rb")
    with file:
        yield file


def file_texts(paths: Sequence[Path]) -> list[str]:
    """Return the texts of files."""
    texts = []
    for path in paths:
        try:
            with opened(path) as file, console.if_slow(NO_END.format(shown(path))):
                texts.append(_text_of(file, shown(path)))
            if not texts[-1].strip():
                console.warn(f"{shown(path)} has no text")
        except OSError as error:
            error.filename = error.filename or os.fspath(path)  # a read that fails does not say of what
            raise
    return texts


def _text_of(stream: BinaryIO, name: str) -> str:
    """Read a text whole; UsageError for data that is not text, by its first bytes, and for more than MAX_BYTES."""
    head = stream.read(SAMPLE)
    if why := not_text(head):
        raise UsageError(f"{name} {why}")
    raw = head + stream.read(MAX_BYTES + 1 - len(head)) if len(head) == SAMPLE else head
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{name} is larger than {MAX_BYTES:,} bytes, more than any context; shorten it")
    return decode(raw).rstrip("\n")


def read_text(path: Path, limit: int = MAX_SMALL) -> str:
    """Return a small text file, line ends as newlines; UsageError when it is missing, not a file, larger than `limit` bytes or not UTF-8."""
    if not path.is_file():
        raise UsageError(not_a_file(path, "a text file"))
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise UsageError(f"{shown(path)} is larger than {limit:,} bytes; shorten it")
    if why := not_text(raw):
        raise UsageError(f"{shown(path)} {why}")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown(path)} is not UTF-8 (byte {error.start + 1:,} is 0x{raw[error.start]:02X}); "
            "convert it first: iconv -f latin1 -t UTF-8"
        ) from None


def decode(raw: bytes) -> str:
    """Read bytes as UTF-8 with or without BOM, line ends as newlines; NULs and bad bytes become U+FFFD, with a warning that counts them."""
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n")
    n_zero = text.count("\0")
    text = text.replace("\0", "\ufffd") if n_zero else text
    bad = text.count("\ufffd") - raw.count("\ufffd".encode())
    if bad > 0:
        one = bad == 1
        what = "NUL" if n_zero == bad else "not UTF-8"
        console.warn(
            f"{bad:,} {'byte' if one else 'bytes'} of the input {'is' if one else 'are'} {what} and "
            f"{'was' if one else 'were'} replaced; check that it is a text file"
        )
    return text


def said(text: str, where: str) -> str:
    """Return typed text with U+FFFD for bytes that are not UTF-8, and warn with their count and `where`."""
    if n_bad := n_bad_bytes(text):
        are = "was not UTF-8 and is" if n_bad == 1 else "were not UTF-8 and are"
        console.warn(
            f"{counted(n_bad, 'byte')} of {where} {are} replaced by \ufffd; check that the terminal uses UTF-8"
        )
    return clean(text)
