"""Records out of JSONL, CSV, TSV, plain lines and OpenAI's batch files, one at a time."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from mixcli.batch.lines import MAX_LINE, Line, read_lines
from mixcli.errors import UsageError

OPENAI_KEYS = {"custom_id", "method", "url", "body"}
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "lines",
}


@dataclass(frozen=True)
class Record:
    """One thing to ask about: `fields` by name, `id` its own or its line's number; `fault` says why it cannot be asked.

    A line of an OpenAI batch file has a whole `request` instead of fields.
    """

    id: str | int
    fields: dict[str, str] = field(default_factory=dict)
    request: dict[str, Any] | None = None
    fault: str = ""


@dataclass(frozen=True)
class Source:
    """An opened input: what it is, its records, and its columns where they are known before the first record."""

    format: str
    records: Iterator[Record]
    columns: tuple[str, ...] | None = None


def open_records(stream: BinaryIO, name: str, format_: str | None = None) -> Source:
    """Find out what a stream holds and give its records as they come.

    The format is the one that is named, else that of the file's suffix, else JSONL where the first line is a JSON object and plain
    lines where it is not. UsageError for a table without a usable header.
    """
    kind = format_ or SUFFIXES.get(Path(name).suffix.lower())
    lines: Iterator[Line] = (line for line in read_lines(stream) if line.fault or line.text.strip())
    if kind in ("csv", "tsv"):
        return _table(read_lines(stream), kind)
    first = next(lines, None)
    if first is None:
        return Source(kind or "lines", iter(()), None)
    lines = chain([first], lines)
    value = _value(first.text) if kind in (None, "jsonl") else None
    if kind in (None, "jsonl") and isinstance(value, dict):
        kind = "openai" if set(value) >= OPENAI_KEYS else "jsonl"
    return Source(kind or "lines", map(READERS[kind or "lines"], lines))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _plain(line: Line) -> Record:
    return Record(line.number, {"text": line.text}, fault=line.fault)


def _json(line: Line) -> Record:
    """A JSON object's fields, or a JSON text as the field `text`; what is no text itself goes in as JSON."""
    if line.fault:
        return Record(line.number, fault=line.fault)
    try:
        value = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return Record(line.number, fault=f"the line is no JSON: {_why(error)}")
    if isinstance(value, str):
        value = {"text": value}
    if not isinstance(value, dict):
        return Record(
            line.number, fault=f"the line is a JSON {type(value).__name__}; an object or a text is needed"
        )
    identity = value.get("custom_id", value.get("id"))
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        identity = line.number
    fields = {str(key): item if isinstance(item, str) else _as_text(item) for key, item in value.items()}
    return _checked(Record(identity, fields), line.number)


def _openai(line: Line) -> Record:
    record = _json(line)
    if record.fault:
        return record
    value = json.loads(line.text)
    return replace(record, fields={}, request=value.get("body"), fault=_fault_of(value))


def _fault_of(request: dict[str, Any]) -> str:
    """Say what keeps one request of a batch from being sent."""
    if missing := OPENAI_KEYS - set(request):
        return f"the request lacks {', '.join(sorted(missing))}"
    if request["method"] != "POST" or request["url"] != "/v1/chat/completions":
        return f"{request['method']} {request['url']} is not served; POST /v1/chat/completions is"
    return "" if isinstance(request["body"], dict) else "the body of the request is no JSON object"


def _table(lines: Iterator[Line], kind: str) -> Source:
    """Read CSV (commas, or semicolons where the header has more of them) or TSV, header first; a quoted field may span lines."""
    csv.field_size_limit(MAX_LINE)
    first = next(lines, None)
    if first is None:
        return Source(kind, iter(()), ())
    if first.fault:
        raise UsageError(f"the header cannot be read: {first.fault}")
    separator = "\t" if kind == "tsv" else max(",;", key=first.text.count)
    feed = _Feed(chain([first], lines))
    rows = csv.reader(feed, delimiter=separator, strict=True)
    try:
        columns = tuple(name.strip() for name in next(rows))
    except csv.Error as error:
        raise UsageError(f"the header cannot be read: {error}") from error
    if "" in columns or len(set(columns)) < len(columns):
        raise UsageError(
            f"the header needs a name of its own for every column; it has {', '.join(map(repr, columns))[:300]}"
        )
    return Source(kind, _rows(rows, feed, columns), columns)


class _Feed:
    """Gives lines to the csv module and keeps what was wrong with those that it cannot have."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.number = 0
        self.fault = ""

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        if line.fault:
            self.fault = line.fault
        return line.text + "\n"

    def take_fault(self) -> str:
        fault, self.fault = self.fault, ""
        return fault


def _rows(rows: Iterator[list[str]], feed: _Feed, columns: tuple[str, ...]) -> Iterator[Record]:
    while True:
        started = feed.number + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            yield Record(started, fault=f"the row cannot be read: {error}")
            continue
        fault = feed.take_fault()
        if fault:
            yield Record(started, fault=fault)
        elif row is None:
            return
        elif row and len(row) != len(columns):
            yield Record(started, fault=f"the row has {len(row)} fields, the header {len(columns)}")
        elif row:
            fields = dict(zip(columns, row, strict=True))
            yield Record(fields.get("id") or started, fields)


def _checked(record: Record, number: int) -> Record:
    """Refuse lone surrogates: JSON can write them, but they are no text that could be sent on."""
    try:
        json.dumps([record.id, record.fields, record.request], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return Record(
            number, fault="it has half of a surrogate pair (\\ud800 to \\udfff), which is no character"
        )
    return record


def _as_text(value: Any) -> str:
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _why(error: Exception) -> str:
    return "it is too deep" if isinstance(error, RecursionError) else str(error)


READERS: dict[str, Callable[[Line], Record]] = {"lines": _plain, "jsonl": _json, "openai": _openai}
