"""Read CSV and TSV: detect the separator, skip unnamed index columns, name the row of an unclosed quote."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mixcli.batch.lines import MAX_LINE, InputLine, Readable, read_lines
from mixcli.batch.record import Record, RecordSource
from mixcli.errors import UsageError
from mixcli.system.formatting import counted

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
SAMPLE = 200  # rows that are looked at
LONG_NAME, MANY_WORDS = 60, 6  # a header that is longer looks like a text
_NUMBER = re.compile(r"[-+]?\d[\d.,]*")
_SEP = re.compile(r'"?sep=([,;|\t])"?')  # the first line that Excel writes

Row = list[str]


@dataclass(frozen=True)
class Dialect:
    """How a table is written; `skips` lines stand before its header."""

    separator: str
    skips_blanks: bool = False
    skips: int = 0

    def reader(self, lines: Iterator[str], *, strict: bool) -> Iterator[Row]:
        return csv.reader(lines, delimiter=self.separator, skipinitialspace=self.skips_blanks, strict=strict)


def open_table(stream: Readable, head: bytes, is_whole: bool, kind: str, named: bool) -> RecordSource:
    """Return the records of a table. `kind` is csv or tsv, `named` shows whether --format says so. UsageError without a usable header."""
    csv.field_size_limit(MAX_LINE)
    dialect, sample = sniff(head, is_whole, kind, named)
    feed = _Feed(read_lines(stream))
    header = _header(feed, dialect)
    if header is None:
        return RecordSource(kind, iter(()), ())
    notes: list[str] = []
    names = _names(header, sample[1:], notes)
    columns = tuple(name for name in names if name)
    return RecordSource(
        kind, _records(feed, dialect, names), columns, _doubt(columns, names, sample), tuple(notes)
    )


def sniff(head: bytes, is_whole: bool, kind: str, named: bool) -> tuple[Dialect, list[Row]]:
    """Find out how a table is written, from its first rows; returns these too. UsageError where two ways fit equally well."""
    text = re.sub(r"\r\n?", "\n", head.decode("utf-8-sig", "replace")).lstrip("\n")
    if not is_whole and "\n" in text:
        text = text[: text.rindex("\n") + 1]
    if said := _SEP.fullmatch(text.split("\n", 1)[0]):
        dialect = Dialect(said[1], skips=1)
        return dialect, _sample(dialect, text.split("\n", 1)[-1], is_whole)
    ways = {separator: _sample(Dialect(separator), text, is_whole) for separator in SEPARATORS}
    scores = {separator: _fit(rows) for separator, rows in ways.items() if rows and len(rows[0]) > 1}
    own = "\t" if kind == "tsv" else ","
    best = max(scores, key=lambda separator: (*scores[separator], separator == own), default=own)
    if kind == "tsv" and ("\t" in scores or named):
        if best != "\t" and "\t" not in scores:
            raise UsageError(
                f"--format tsv: the header has no tab, but {SEPARATORS[best]}; pass --format csv"
            )
        best = "\t"
    rivals = [separator for separator in scores if scores[separator] == scores[best] and separator != best]
    if rivals and best != "\t":
        raise UsageError(
            f"the columns can be separated by {SEPARATORS[best]} or by {SEPARATORS[rivals[0]]}, both fit; "
            "quote the values that contain the other separator, or pass --format tsv for tabs"
        )
    rows = ways[best]
    spaced = any(re.match(r'\s+"', value) for row in rows for value in row)
    dialect = Dialect(best, skips_blanks=spaced)
    return dialect, _sample(dialect, text, is_whole) if spaced else rows


def _sample(dialect: Dialect, text: str, is_whole: bool) -> list[Row]:
    rows: list[Row] = []
    try:
        rows.extend(islice(filter(None, dialect.reader(io.StringIO(text), strict=False)), SAMPLE + 1))
    except csv.Error:
        return rows
    return rows[:-1] if not is_whole and len(rows) > 1 and not text.endswith("\n") else rows


def _fit(rows: list[Row]) -> tuple[float, int]:
    """Return the share of the rows that have as many fields as the header, and how many these are."""
    n = len(rows[0])
    n_fitting = sum(len(row) == n or (len(row) > n and not any(row[n:])) for row in rows[1:])
    return (n_fitting / (len(rows) - 1) if len(rows) > 1 else 1.0), n


class _Feed:
    """Feeds lines to the csv module, remembers those of the current row, and takes them back if they were not a row."""

    def __init__(self, lines: Iterator[InputLine]) -> None:
        self._lines = lines
        self._back: deque[InputLine] = deque()
        self.taken: list[InputLine] = []
        self._n_chars = 0

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        if self._n_chars > MAX_LINE:
            raise StopIteration
        line = self._back.popleft() if self._back else next(self._lines)
        self.taken.append(line)
        self._n_chars += len(line.text) + 1
        return line.text + "\n"

    def start(self) -> None:
        """Begin with a row."""
        self.taken, self._n_chars = [], 0

    def take_back(self) -> None:
        """Let the next row begin after the first line of this one."""
        self._back.extendleft(reversed(self.taken[1:]))

    @property
    def fault(self) -> str:
        return next((line.fault for line in self.taken if line.fault), "")


def _header(feed: _Feed, dialect: Dialect) -> Row | None:
    for _ in range(dialect.skips):
        feed.start()
        next(feed, None)
    while True:
        feed.start()
        try:
            row = next(dialect.reader(feed, strict=True), None)
        except csv.Error as error:
            raise UsageError(f"the header cannot be read: {_why(error, feed)}") from error
        if feed.fault:
            raise UsageError(f"the header cannot be read: {feed.fault}")
        if row is None or any(cell.strip() for cell in row):
            return None if row is None else [cell.strip() for cell in row]


def _names(header: Row, rows: list[Row], notes: list[str]) -> list[str]:
    """Return a name for each column, "" for one that is skipped: an unnamed index first, empty columns last. UsageError for other columns without a name."""
    for number, name in enumerate(header, 1):
        if name and name in header[: number - 1]:
            raise UsageError(
                f"the header needs a unique name for every column; {name!r} is given twice, as columns "
                f"{header.index(name) + 1} and {number}"
            )
    named = [number for number, name in enumerate(header) if name]
    for number, name in enumerate(header):
        values = [row[number].strip() for row in rows if number < len(row)]
        is_index = (
            number == 0
            and len(header) > 1
            and any(values)
            and all(_NUMBER.fullmatch(value) or not value for value in values)
        )
        is_empty = not any(values) and bool(named)
        if not name and not is_index and not is_empty:
            raise UsageError(
                f"the header needs a name for every column; column {number + 1} has none, "
                f"but has values such as {next(filter(None, values), '')[:40]!r}"
            )
        if not name and is_index:
            notes.append(
                "the first column has no name and holds numbers: it is treated as an index and skipped"
            )
    return header


def _doubt(columns: Sequence[str], names: list[str], sample: list[Row]) -> str:
    """Return why the only column's name may be a record: a file without a header would lose its first one."""
    if len(columns) != 1:
        return ""
    name, at = columns[0], names.index(columns[0])
    looks = (
        _NUMBER.fullmatch(name)
        or len(name) > LONG_NAME
        or len(name.split()) > MANY_WORDS
        or name[-1:] in ".!?"
    )
    if not looks and name not in [row[at].strip() for row in sample[1:] if at < len(row)]:
        return ""
    return f"the first line, {name[:60]!r}, looks like a record, not a header"


def _records(feed: _Feed, dialect: Dialect, names: list[str]) -> Iterator[Record]:
    while True:
        feed.start()
        try:
            row = next(dialect.reader(feed, strict=True), None)
        except csv.Error as error:
            number, why = feed.taken[0].number, _why(error, feed)
            feed.take_back()
            yield Record(
                number, fault=why if why.startswith("the quote") else f"the row cannot be read: {why}"
            )
            continue
        number = feed.taken[0].number if feed.taken else 0
        if feed.fault:
            yield Record(number, fault=feed.fault)
        elif row is None:
            return
        elif row:
            yield _record(row, names, number)


def _record(row: Row, names: list[str], number: int) -> Record:
    while len(row) > len(names) and not row[-1].strip():
        row.pop()
    if len(names) > 1 and [value.strip() for value in row] == names:
        return Record(number, fault="the row is the header again, as where files were joined; remove it")
    if len(row) > len(names) or any(names[len(row) :]):
        return Record(number, fault=f"the row has {counted(len(row), 'field')}, the header {len(names)}")
    for column, (name, value) in enumerate(zip(names, row, strict=False), 1):
        if not name and column > 1 and value.strip():
            return Record(
                number, fault=f"field {column} has a value, {value[:40]!r}, but no name in the header"
            )
    fields = {name: value for name, value in zip(names, row, strict=False) if name}
    return Record(fields.get("custom_id") or fields.get("id") or number, fields)


def _why(error: csv.Error, feed: _Feed) -> str:
    if len(feed.taken) > 1 or "unexpected end" in str(error):
        return "the quote opened in this row is never closed"
    return str(error)
