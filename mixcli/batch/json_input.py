"""Read records from JSON: lines, an array, values over several lines, or an object that wraps the records.

A document (all but lines) is read one value at a time, so an array of any length takes constant memory. Only an object around the records,
{"data": [...]}, is read whole, up to MAX_WRAPPER bytes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from mixcli.batch.lines import MAX_LINE, InputLine, Readable
from mixcli.batch.record import Record
from mixcli.errors import UsageError
from mixcli.request.template import as_text
from mixcli.system.formatting import counted
from mixcli.system.strict_json import Repeated, decoded, finite, unique, whole

MAX_WRAPPER = 1 << 26  # bytes
PIECE = 1 << 16
COMPACT = 1 << 20  # bytes that were read and are let go at a time
OPENAI_KEYS = {"custom_id", "method", "url", "body"}
# names that files give the list of their records
WRAPPERS = (
    "data",
    "records",
    "rows",
    "items",
    "results",
    "examples",
    "documents",
    "texts",
    "instances",
    "entries",
    "values",
)
SURE_WRAPPERS = (
    "data",
    "records",
    "rows",
    "results",
)  # beside other fields, such as a count, these are still the records
TURNS = (
    "messages",
    "conversation",
    "conversations",
    "turns",
)  # a record that is a conversation, and no wrapper
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_END = re.compile(rb"[,\]}\s]")
_BLANK = re.compile(rb"\s*")


class Broken(ValueError):
    """A text that is not JSON, or has one name twice."""


def load(raw: str) -> Any:
    """Return what JSON says. Raises Broken, also where an object has the same name twice: it could mean either value.

    NaN, which programs write for a cell without a value, is a text like others where it is asked about.
    """
    try:
        return decoded(_DECODER, raw)
    except Repeated as error:
        raise Broken(f"ambiguous: {error}") from error
    except ValueError as error:
        raise Broken(f"not JSON: {error}") from error


_DECODER = json.JSONDecoder(object_pairs_hook=unique, parse_float=finite, parse_int=whole)


def line_values(lines: Iterator[InputLine]) -> Iterator[tuple[int, Any]]:
    """Yield the value of each line with its number, or the Record that says why there is none."""
    for line in lines:
        try:
            yield line.number, Record(line.number, fault=line.fault) if line.fault else load(line.text)
        except Broken as error:
            yield line.number, Record(line.number, fault=f"the line is {error}")


def document_values(stream: Readable) -> Iterator[tuple[int, Any]]:
    """Yield the values of a document with their numbers, from 1. Raises UsageError, which names the record and its line, where it breaks off."""
    scanner = _Scanner(stream)
    is_array = scanner.peek() == b"["
    if is_array:
        scanner.step()
    number = 0
    while (sign := scanner.peek()) and sign != b"]":
        number += 1
        raw = scanner.value(f"record {number}", MAX_LINE if is_array or number > 1 else MAX_WRAPPER)
        try:
            yield number, load(raw.decode("utf-8"))
        except UnicodeDecodeError:
            raise UsageError(
                f"record {number} (line {scanner.line}) is not UTF-8 text; for a Latin-1 file: iconv -f latin1 -t utf-8"
            ) from None
        except Broken as error:
            yield number, Record(number, fault=f"the record (line {scanner.line}) is {error}")
        if is_array and scanner.peek() not in (b",", b"]"):
            raise scanner.broken(f"a comma or ] after record {number}")
        if is_array and scanner.peek() == b",":
            scanner.step()
            if scanner.peek() in (b"]", b""):
                raise scanner.broken(f"a record after the comma that follows record {number}")
    if is_array and scanner.peek() != b"]":
        raise scanner.broken("the end of the array")
    if is_array:
        scanner.step()
    if scanner.peek():
        raise scanner.broken("the end of the file")


class _Scanner:
    """Find the ends of values in pieces of a stream, by brackets and quotes only."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0
        self.line = 1
        if self.peek() and self._buffer.startswith(b"\xef\xbb\xbf"):
            self._at = 3

    def peek(self) -> bytes:
        """Return the next byte that is not a blank; nothing at the end."""
        if self._at > COMPACT:
            self._buffer, self._at = self._buffer[self._at :], 0
        while True:
            blank = _BLANK.match(self._buffer, self._at)
            self._move(blank.end() if blank else self._at)
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def step(self) -> None:
        """Step over one sign."""
        self._move(self._at + 1)

    def value(self, name: str, limit: int) -> bytes:
        """Return the bytes of the value that begins here. Raises UsageError when the file ends in it, or it has more than `limit` bytes."""
        start = at = self._at
        depth = 0
        if self._buffer[start : start + 1] not in (b"{", b"[", b'"'):
            return self._word(name)
        while True:
            token = _TOKEN.search(self._buffer, at)
            if token is None or token[0] == b'"':
                at = token.start() if token else len(self._buffer)
                if len(self._buffer) - start > limit:
                    raise UsageError(
                        f"{name} (line {self.line:,}) is longer than {limit:,} bytes, the limit; shorten it"
                    )
                if not self._more():
                    raise UsageError(
                        f"the file ends in the middle of {name}, which begins in line {self.line}; use a complete file"
                    )
                continue
            at = token.end()
            depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
            if depth == 0:
                raw = self._buffer[start:at]
                self._move(at)
                return raw

    def broken(self, wanted: str) -> UsageError:
        found = self._buffer[self._at : self._at + 20].decode("utf-8", "replace").strip()
        return UsageError(
            f"line {self.line} of the JSON: expected {wanted}, found {found!r}"
            if found
            else f"the JSON is truncated: expected {wanted}"
        )

    def _word(self, name: str) -> bytes:
        while (
            (end := _END.search(self._buffer, self._at)) is None
            and len(self._buffer) - self._at < PIECE
            and self._more()
        ):
            pass
        stop = end.start() if end else len(self._buffer)
        if stop == self._at:
            raise self.broken(name)
        raw = self._buffer[self._at : stop]
        self._move(stop)
        return raw

    def _move(self, at: int) -> None:
        self.line += self._buffer.count(b"\n", self._at, at)
        self._at = at

    def _more(self) -> bool:
        piece = self._stream.read1(PIECE)
        self._buffer += piece
        return bool(piece)


def unwrapped(
    values: Iterator[tuple[int, Any]], notes: list[str], *, is_document: bool
) -> Iterator[tuple[int, Any]]:
    """Yield the values, and in the place of a single object around the records these. UsageError where an object holds columns instead.

    `notes` gets what a person should know of it.
    """
    first = next(values, None)
    if first is None:
        return
    lists = _lists(first[1]) if isinstance(first[1], dict) else {}
    if not lists and not (is_document and isinstance(first[1], dict)):
        yield first
        yield from values
        return
    second = next(values, None)
    inside = _inside(first[1], lists, notes, is_document=is_document) if second is None else None
    if inside is not None:
        yield from enumerate(inside, 1)
        return
    yield first
    if second is not None:
        yield second
    yield from values


def _lists(value: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the fields of an object that could be its records: lists of objects, and any list under a name that files give their records."""
    lists = {name: item for name, item in value.items() if isinstance(item, list) and item}
    return {
        name: item
        for name, item in lists.items()
        if name in WRAPPERS or (name not in TURNS and all(isinstance(one, dict) for one in item))
    }


def _inside(
    value: dict[str, Any], lists: dict[str, list[Any]], notes: list[str], *, is_document: bool
) -> list[Any] | None:
    """Return the records inside of the only object of a file; None where the object is a record itself. UsageError where it could be both."""
    tables = {name: item for name, item in lists.items() if all(isinstance(one, dict) for one in item)}
    how = "convert it to an array of objects or to JSON lines"
    name = next(iter(tables), "")
    others = {key: item for key, item in value.items() if key != name}
    is_about = not (
        {"id", "custom_id", "text"} & set(others) or any(isinstance(item, list) for item in others.values())
    )
    is_alone = not others and (is_document or name in WRAPPERS)
    if len(tables) == 1 and (is_alone or (is_about and name in SURE_WRAPPERS)):
        notes.append(f"the input is one object; it has {counted(len(tables[name]), 'record')} in {name!r}")
        return tables[name]
    if tables and is_document:
        raise UsageError(
            f"ambiguous input: one object, which may be a single record or hold its records in {' or '.join(map(repr, tables))}; {how}"
        )
    if lists and not tables and len(value) == 1:
        raise UsageError(
            f"the input is one object, and {next(iter(lists))!r} is a list of values without names; {how}"
        )
    if is_document and _is_columns(value):
        raise UsageError(
            f"the input is one object whose fields hold columns or records by name ({', '.join(list(value)[:4])}); {how}, "
            "with pandas: to_json(FILE, orient='records', lines=True)"
        )
    return None


def _is_columns(value: dict[str, Any]) -> bool:
    items = list(value.values())
    if not items or {"columns", "data"} <= set(value):
        return bool(items)
    if all(isinstance(item, list) for item in items):
        return len(items) > 1 and len({len(item) for item in items}) == 1 and len(items[0]) > 1
    if all(isinstance(item, dict) and item for item in items):
        names = {tuple(item) for item in items}
        return len(names) == 1 and (len(items) > 1 or all(name.isdecimal() for name in names.pop()))
    return False


def record_of(number: int, value: Any, what: str = "line") -> Record:
    """Return an object's fields, or a text as the field `text`; anything else goes in as JSON."""
    if isinstance(value, Record):
        return value
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        return Record(number, fault=f"the {what} must be an object or a string, not {_kind(value)}")
    identity = value.get("custom_id", value.get("id"))
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        identity = number
    nested = {name: item for name, item in value.items() if isinstance(item, dict | list)}
    fields = {name: as_text(item) for name, item in value.items()}
    nulls = frozenset(name for name, item in value.items() if item is None)
    return _checked(Record(identity, fields, nested=nested, nulls=nulls), number)


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return "an array" if isinstance(value, list) else "a number"


def is_request(value: Any) -> bool:
    """Return whether a value is a line of an OpenAI batch file, also one that lacks something."""
    return (
        isinstance(value, dict)
        and {"custom_id", "body"} <= set(value)
        and (len(OPENAI_KEYS & set(value)) > 2 or isinstance(value["body"], dict))
    )


class Requests:
    """Reads lines of an OpenAI batch file; their custom_ids are kept (as hashes) because none may be there twice."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def record_of(self, number: int, value: Any, what: str = "line") -> Record:
        record = record_of(number, value, what)
        if record.fault:
            return record
        if not isinstance(value, dict):
            return Record(number, fault=f"the {what} must be an object like the other requests, not a string")
        fault = _fault_of(value)
        if not fault:
            first = self._seen.setdefault(hash(str(record.id)), number)
            fault = (
                f"duplicate custom_id {record.id!r}, first used in {what} {first}" if first != number else ""
            )
        return replace(record, fields={}, nested={}, request=value.get("body"), fault=fault)


def _fault_of(request: dict[str, Any]) -> str:
    """Return what keeps one request of a batch from being sent."""
    if missing := OPENAI_KEYS - set(request):
        return f"the request lacks {', '.join(sorted(missing))}"
    identity = request["custom_id"]
    if isinstance(identity, bool) or not isinstance(identity, str | int) or identity == "":
        return f"the custom_id must be a non-empty string, not {json.dumps(identity)[:40]}"
    for name, only in (("method", "POST"), ("url", "/v1/chat/completions")):
        if request[name] != only:
            return f'the {name} {json.dumps(request[name])[:80]} is not supported; use "{only}"'
    return "" if isinstance(request["body"], dict) else "the body of the request is not a JSON object"


def _checked(record: Record, number: int) -> Record:
    """Refuse lone surrogates: JSON can write them, but they are not text that could be sent on."""
    try:
        "".join((str(record.id), *record.fields, *record.fields.values())).encode()
    except UnicodeEncodeError:
        return Record(number, fault="it contains a lone surrogate (\\ud800 to \\udfff)")
    return record
