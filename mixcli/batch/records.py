"""Detect the format of an input and open it: JSON lines, JSON, CSV, TSV, plain lines or OpenAI batch files."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from mixcli.batch.csv_input import open_table
from mixcli.batch.json_input import Requests, document_values, is_request, line_values, record_of, unwrapped
from mixcli.batch.lines import InputLine, read_lines
from mixcli.batch.record import Record, RecordSource
from mixcli.batch.sniff import Peeked, check_no_table, check_text, first_line, is_one, json_shape
from mixcli.errors import UsageError

SUFFIXES = {
    ".json": "jsonl",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".txt": "lines",
}


def open_records(stream: BinaryIO, name: str, format_: str | None = None) -> RecordSource:
    """Detect the format of a stream and yield its records as they arrive.

    The format is the one that is named, else that of the file's suffix, else JSON where it begins so and plain lines where it does
    not. UsageError for input that is not text, a table without a usable header, or a suffix that contradicts the content.
    """
    peeked = Peeked(stream)
    head, is_whole = peeked.head, peeked.is_whole
    check_text(head, name, format_)
    kind = format_ or SUFFIXES.get(Path(name).suffix.lower())
    shape = "" if format_ == "lines" else json_shape(head, is_whole)
    if kind in ("csv", "tsv", "lines") and shape and format_ is None and _is_object(head, is_whole):
        raise UsageError(
            f"{name} has the suffix of {kind if kind != 'lines' else 'plain lines'} but contains JSON; "
            f"pass --format jsonl, or --format {kind} to force it"
        )
    if kind in ("csv", "tsv"):
        return open_table(peeked, head, is_whole, kind, named=format_ is not None)
    if kind == "jsonl" or (kind is None and shape):
        is_document = shape == "document" or (
            format_ is None and name.lower().endswith(".json") and is_one(head, is_whole)
        )
        return _json_source(peeked, is_document, kind)
    if kind is None:
        check_no_table(head, is_whole)
    return RecordSource("lines", map(_plain, _lines(peeked)))


def _is_object(head: bytes, is_whole: bool) -> bool:
    line = first_line(head, is_whole)
    return line is None or line[:1] in "[{"


def _lines(peeked: Peeked) -> Iterator[InputLine]:
    return (line for line in read_lines(peeked) if line.fault or line.text.strip())


def _plain(line: InputLine) -> Record:
    return Record(line.number, {"text": line.text}, fault=line.fault)


def _json_source(peeked: Peeked, is_document: bool, kind: str | None) -> RecordSource:
    notes: list[str] = []
    found = document_values(peeked) if is_document else line_values(_lines(peeked))
    values = unwrapped(found, notes, is_document=is_document)
    first = next(values, None)
    if first is None:
        return RecordSource(kind or "lines", iter(()))
    what = "record" if is_document else "line"
    is_openai = is_request(first[1])
    read = Requests().record_of if is_openai else record_of
    every: Iterator[tuple[int, Any]] = chain([first], values)
    records = (read(number, value, what) for number, value in every)
    return RecordSource("openai" if is_openai else "jsonl", records, notes=tuple(notes))


__all__ = ["Record", "RecordSource", "open_records"]
