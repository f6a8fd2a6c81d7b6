"""Read one field of a request's body: of a large one without building the rest, which may be 60 MB of JSON and is parsed by the host anyway."""

import asyncio
import codecs
import json
import re
import sys
from typing import Final

LARGE = (
    1 << 18
)  # bytes of a body from which on it is looked through in a thread, so that the streams of others continue
WINDOW = 1 << 16  # bytes that one search looks through; between two of them other threads run
MAX_SCALAR = 4096  # bytes of a number or a word

_BLANK = re.compile(rb"[\s,]*+")
_COLON = re.compile(rb"\s*+:\s*+")
_SCALAR = re.compile(rb'[^\s,{}\[\]"]{1,%d}' % MAX_SCALAR)
_INSIDE = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)  # of a string
_SIGN = re.compile(rb'["{}\[\]]')
QUOTE, BACKSLASH, OPEN = ord('"'), ord("\\"), b"{["


class Nested:
    """An object or a list, which no scalar field may be."""


NESTED: Final = Nested()
Scalar = str | int | float | bool | None


async def field_of(body: bytes, name: str) -> Scalar | Nested:
    """Return a field of the object that a body is; None where it has none, or is not JSON."""
    return await asyncio.to_thread(scan, body, name) if len(body) > LARGE else _parsed(body, name)


async def fault_of(body: bytes) -> str | None:
    """Return what is wrong with a body that should be a JSON object; None where it is one. Of a large one only whether it is whole is looked at."""
    return await asyncio.to_thread(_cut_off, body) if len(body) > LARGE else _fault(body)


def _fault(body: bytes) -> str | None:
    try:
        value = json.loads(body)
    except UnicodeDecodeError as error:
        return f"body is not UTF-8: byte {error.start:,}"
    except ValueError as error:
        return f"body is not JSON: {error}"
    except RecursionError:
        return "body is nested too deeply"
    return None if isinstance(value, dict) else "body must be a JSON object"


def _cut_off(body: bytes) -> str | None:
    at = _behind(_BLANK, body, len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0)
    if body[at : at + 1] != b"{":
        return "body must be a JSON object"
    if (end := _behind_brackets(body, at)) is None:
        return f"body is not JSON: it ends inside an object, after {len(body):,} bytes"
    return f"body is not JSON: extra data after byte {end:,}" if body[end:].strip() else None


def _parsed(body: bytes, name: str) -> Scalar | Nested:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = value.get(name) if isinstance(value, dict) else None
    return found if found is None or isinstance(found, str | int | float) else NESTED


def scan(body: bytes, name: str) -> Scalar | Nested:
    """Return the first field of that name without building the rest; what follows it is not looked at."""
    at = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    at = _behind(_BLANK, body, at)
    if body[at : at + 1] != b"{":
        return None
    at += 1
    while (key := _behind(_BLANK, body, at)) < len(body) and body[key] == QUOTE:
        key_end = _behind_string(body, key)
        at = begin = _behind(_COLON, body, key_end)
        sign = body[begin : begin + 1]
        if sign == b'"':
            at = _behind_string(body, begin)
        elif sign and sign in OPEN:
            at = _behind_brackets(body, begin) or len(body)
        elif (at := _behind(_SCALAR, body, begin)) == begin:
            return None
        if key_end - key < MAX_SCALAR and _value(body[key:key_end]) == name:
            return NESTED if sign and sign in OPEN else _value(body[begin:at])
    return None


def _value(raw: bytes) -> Scalar | Nested:
    try:
        found: Scalar = json.loads(raw)
    except ValueError:
        return None
    return found


def _behind(pattern: re.Pattern[bytes], body: bytes, at: int, end: int = sys.maxsize) -> int:
    """Return where a match at a place ends, at `end` at the latest; the place itself where there is none."""
    match = pattern.match(body, at, end)
    return match.end() if match else at


def _behind_string(body: bytes, at: int) -> int:
    """Return where the string that begins at `at` ends, after its quote; the end of the body where it does not."""
    at += 1
    while (end := body.find(b'"', at)) >= 0:
        if body[end - 1] != BACKSLASH:
            return end + 1
        begin, at = at, _behind(_INSIDE, body, at, at + WINDOW)
        if body[at : at + 1] == b'"':
            return at + 1
        if at == begin:  # a backslash at the end of a window
            at += 2
    return len(body)


def _behind_brackets(body: bytes, at: int) -> int | None:
    """Return where the object or list that begins at `at` ends; None where it does not."""
    depth = 0
    while at < len(body):
        found = _SIGN.search(body, at, at + WINDOW)
        if found is None:
            at += WINDOW
            continue
        at = found.start()
        if body[at] == QUOTE:
            at = _behind_string(body, at)
            continue
        depth += 1 if found[0] in OPEN else -1
        at += 1
        if depth <= 0:
            return at
    return None
