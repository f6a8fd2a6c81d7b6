"""Read one field of a request's body without building the rest, which may be 60 MB of JSON and is parsed by the host anyway."""

import asyncio
import codecs
import json
import re
from typing import Final

LARGE = 1 << 20  # bytes of a body that are looked through in a thread, so that the streams of others go on

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_OPEN = re.compile(rb"\s*+\{")
_KEY = re.compile(rb"[\s,]*+(%b)\s*+:\s*+" % _STRING, re.DOTALL)
_SCALAR = re.compile(rb'%b|[^\s,{}\[\]"]++' % _STRING, re.DOTALL)
_BRACKET = re.compile(rb'[^"{}\[\]]*+(?:%b[^"{}\[\]]*+)*+([{}\[\]])' % _STRING, re.DOTALL)


class Nested:
    """An object or a list, which no scalar field may be."""


NESTED: Final = Nested()
Scalar = str | int | float | bool | None


async def field_of(body: bytes, name: str) -> Scalar | Nested:
    """Return the first field of that name of the object that a body is; None where it has none, or is not JSON."""
    return await asyncio.to_thread(scan, body, name) if len(body) > LARGE else scan(body, name)


def scan(body: bytes, name: str) -> Scalar | Nested:
    """Do the same in this thread; what follows the field is not looked at."""
    begin = _OPEN.match(body, len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0)
    at = begin.end() if begin else len(body)
    while key := _KEY.match(body, at):
        is_wanted = _value(key[1]) == name
        value = _SCALAR.match(body, key.end())
        if is_wanted:
            return _value(value[0]) if value else NESTED
        at = value.end() if value else _behind_brackets(body, key.end())
    return None


def _value(raw: bytes) -> Scalar | Nested:
    try:
        found: Scalar = json.loads(raw)
    except ValueError:
        return None
    return found


def _behind_brackets(body: bytes, at: int) -> int:
    """Return where the object or list that begins at `at` ends; the end of the body where it does not."""
    depth = 0
    while sign := _BRACKET.match(body, at):
        at = sign.end()
        depth += 1 if sign[1] in b"{[" else -1
        if depth <= 0:
            return at
    return len(body)
