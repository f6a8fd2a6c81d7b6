"""What comes through a pipe or out of files, as text."""

import sys
from collections.abc import Sequence
from pathlib import Path

from mixcli.console import console
from mixcli.errors import UsageError

MAX_BYTES = 1 << 28  # of a text that is read whole


def piped_text() -> str:
    """Give what is piped in; nothing where stdin is a terminal or closed."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return ""
    return _checked(sys.stdin.buffer.read(MAX_BYTES + 1), "the piped text")


def file_texts(paths: Sequence[Path]) -> list[str]:
    """Give the texts of files."""
    texts = []
    for path in paths:
        with path.open("rb") as file:
            texts.append(_checked(file.read(MAX_BYTES + 1), str(path)))
    return texts


def _checked(raw: bytes, name: str) -> str:
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{name} has more than {MAX_BYTES:,} bytes; no context is that large")
    return decode(raw).rstrip("\n")


def decode(raw: bytes) -> str:
    """Read bytes as UTF-8 with or without BOM, line ends as newlines; bad bytes become U+FFFD, with a warning that counts them."""
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\0", "\ufffd")
    bad = text.count("\ufffd") - raw.count("\ufffd".encode())
    if bad > 0:
        console.warn(f"{bad} bytes of the input are no UTF-8 text and were replaced; is it a text file?")
    return text


def argument(text: str) -> str:
    """Give a word of the command line as text: bytes that are no UTF-8 come as lone surrogates and become U+FFFD."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
