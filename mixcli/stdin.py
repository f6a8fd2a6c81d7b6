"""What comes through a pipe, as text."""

import sys

from mixcli.console import console
from mixcli.errors import UsageError


def with_piped_text(prompt: str | None) -> str:
    """Give the piped text, then the prompt, with an empty line between; UsageError when there is neither."""
    parts = [part for part in (_piped(), prompt) if part and part.strip()]
    if not parts:
        raise UsageError(
            "there is nothing to answer; give a prompt (mixcli run 'Why is the sky blue?') or pipe some text in"
        )
    return "\n\n".join(parts)


def _piped() -> str | None:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        return None
    return decode(sys.stdin.buffer.read()).rstrip("\n")


def decode(raw: bytes) -> str:
    """Read bytes as UTF-8 with or without BOM, line ends as newlines; bad bytes become U+FFFD, with a warning that counts them."""
    text = raw.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\0", "\ufffd")
    bad = text.count("\ufffd") - raw.count("\ufffd".encode())
    if bad > 0:
        console.warn(f"{bad} bytes of the input are no UTF-8 text and were replaced; is it a text file?")
    return text
