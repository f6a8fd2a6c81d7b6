"""Read the small files of a checkpoint folder: JSON with limits, and names that stay inside the folder."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile, MalformedFile
from quantize.sources.input_file import read_file

MAX_JSON_BYTES = 1 << 26  # the largest tokenizer.json known has 34 MB
MAX_JSON_VALUES = 1 << 22  # that one has 2 million; a value takes up to 100 bytes of memory

_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_VALUES = re.compile(rb"[\[{,]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path) -> Any:
    """Read a JSON file; CorruptFile when it is huge, not UTF-8, not JSON, nested too deeply, or says a thing twice."""
    raw = read_file(path, MAX_JSON_BYTES)

    def bad(what: str) -> CorruptFile:
        return MalformedFile(f"{path.name} {what}")

    refuse_wide(path.name, raw)
    return parse_json(raw, bad)


def refuse_wide(name: str, raw: bytes) -> None:
    """Raise CorruptFile for JSON in an encoding of two or four bytes a character, as PowerShell writes a text that is redirected."""
    if raw.startswith(_UTF16) or b"\0" in raw[:4]:
        raise CorruptFile(f"{name} is UTF-16 or UTF-32 text, but JSON must be UTF-8; save it as UTF-8")


def parse_json(raw: bytes, bad: Callable[[str], CorruptFile], *, strict: bool = False) -> Any:
    """Parse bounded JSON; `bad` makes the error of a phrase such as "is not JSON".

    A key that comes twice is refused where its values differ, and with `strict` always.
    """
    n_values = sum(1 for _ in _VALUES.finditer(raw)) if len(raw) > MAX_JSON_VALUES else 0
    if n_values > MAX_JSON_VALUES:
        raise bad(f"has {n_values:,} values; the limit is {MAX_JSON_VALUES:,}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = dict(pairs)
        if len(found) < len(pairs):
            _refuse_repeated(pairs, bad, strict)
        return found

    try:
        value = json.loads(raw.decode("utf-8-sig"), object_pairs_hook=unique)
        if _SURROGATE.search(raw):
            _text_only(value)
    except RecursionError:
        raise bad("is nested too deeply") from None
    except UnicodeEncodeError:
        raise bad("contains a lone surrogate") from None
    except UnicodeDecodeError as error:
        raise bad(f"is not UTF-8 text (byte {error.start:,} is {raw[error.start]:#04x})") from None
    except ValueError as error:
        raise bad(f"is not JSON ({error})") from None
    return value


def _refuse_repeated(pairs: list[tuple[str, Any]], bad: Callable[[str], CorruptFile], strict: bool) -> None:
    """Raise where one key has two values: two readers would not read the same."""
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen and (strict or seen[key] != value):
            raise bad(f"names {key[:80]!r} twice" + ("" if strict else ", with different values"))
        seen[key] = value


def _text_only(value: Any) -> None:
    """Raise UnicodeEncodeError for a text that cannot be encoded."""
    json.dumps(value, ensure_ascii=False).encode()


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise MalformedFile(f"{path.name} is not a JSON object")
    return value


def read_json_object_if_there(path: Path) -> dict[str, Any]:
    """Read a JSON object, or give an empty one where there is no such file."""
    return read_json_object(path) if path.is_file() else {}


def is_plain_name(name: object) -> bool:
    """Return whether a name from a file is a plain base name: printable, no separators, no drive, no leading dot."""
    return (
        isinstance(name, str)
        and 0 < len(name) <= 255
        and name.isprintable()
        and not name.startswith(".")
        and not any(c in name for c in '/\\:"*?<>|')
    )
