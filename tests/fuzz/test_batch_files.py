"""Batch inputs: what a writer of tables or JSON lines put down is an input, and any bytes are records, faults or one sentence."""

import csv
import io
import json
import re
from dataclasses import dataclass

import pytest
from hypothesis import strategies as st

from mixcli.batch.records import Record, open_records
from mixcli.errors import MixcliError
from mixcli.system.text import SHARE_BAD
from tests.fuzz.budget import RIDDLES, ROUND, for_a_while
from tests.fuzz.values import TEXTS, edited, edits, json_values

pytestmark = pytest.mark.slow

CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f]")
NAMES = ["in.csv", "in.tsv", "in.jsonl", "in.ndjson", "in.json", "in.txt", "-", "in", "in.CSV"]
# a byte order mark that begins a line is no part of it: files may have been joined
CELL = st.sampled_from([one for one in TEXTS if not {"\x00", "\ufeff"} & {*one}]) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff"), max_size=6
)
HEADER = st.lists(
    st.sampled_from(["id", "text", "Customer Name", "größe", "a", "b c", "label", "x.y"]),
    min_size=1,
    max_size=4,
    unique=True,
)


@dataclass(frozen=True)
class Table:
    """Rows as a writer of tables has them, and how it writes them."""

    columns: list[str]
    rows: list[list[str]]
    separator: str
    end: str
    mark: bool
    quote_all: bool

    def data(self) -> bytes:
        text = io.StringIO(newline="")
        quoting = csv.QUOTE_ALL if self.quote_all else csv.QUOTE_MINIMAL
        writer = csv.writer(text, delimiter=self.separator, lineterminator=self.end, quoting=quoting)
        writer.writerows([self.columns, *self.rows])
        return (b"\xef\xbb\xbf" if self.mark else b"") + text.getvalue().encode()


@st.composite
def tables(draw: st.DrawFn) -> Table:
    columns = draw(HEADER)
    cell = CELL.map(
        lambda text: text.replace("\r", " ")
    )  # csv gives CR line ends inside a cell back as it likes
    row = st.lists(cell, min_size=len(columns), max_size=len(columns)).filter(any)
    return Table(
        columns,
        draw(st.lists(row, max_size=4)),
        draw(st.sampled_from(",;\t")),
        draw(st.sampled_from(["\n", "\r\n"])),
        draw(st.booleans()),
        draw(st.booleans()),
    )


def read(data: bytes, name: str) -> list[Record] | None:
    """Read an input to its end; None where it is refused in one sentence before the first record."""
    try:
        records = list(open_records(io.BytesIO(data), name).records)  # a batch reads all once before it asks
    except MixcliError as error:
        check_sentence(str(error))
        return None
    for record in records:
        if record.fault:
            check_sentence(record.fault)
        else:
            json.dumps([record.id, record.fields, record.request], ensure_ascii=False).encode()
    return records


def check_sentence(sentence: str) -> None:
    assert sentence
    assert "\n" not in sentence
    assert not RIDDLES.search(sentence)


def test_tables_are_read_as_they_were_written() -> None:
    def check(table: Table) -> None:
        if len(table.columns) == 1 and table.separator != ",":
            return  # nothing in it says which separator was meant
        data = table.data()
        if len(CONTROLS.findall(data)) > SHARE_BAD * len(data):
            return  # so many are not text
        records = read(data, "in.tsv" if table.separator == "\t" else "in.csv")
        assert records is not None
        wanted = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        assert [record.fields for record in records] == wanted
        assert not any(record.fault for record in records)

    assert for_a_while(tables(), check, share=1 / 3) >= ROUND


def test_json_lines_are_read_as_they_were_written() -> None:
    value = (
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
        | st.integers()
        | st.booleans()
        | st.none()
    )
    record = st.dictionaries(st.sampled_from(["text", "a", "b c", "größe"]), value, min_size=1, max_size=3)

    def check(rows: list[dict[str, object]]) -> None:
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        records = read(data, "in.jsonl")
        assert records is not None
        assert len(records) == len(rows)
        for row, found in zip(rows, records, strict=True):
            assert not found.fault
            texts = {key: value for key, value in row.items() if isinstance(value, str)}
            assert {key: found.fields[key] for key in texts} == texts

    assert for_a_while(st.lists(record, max_size=4), check, share=1 / 3) >= ROUND


def test_any_bytes_are_records_or_faults_or_one_sentence() -> None:
    structured = (
        tables().map(Table.data)
        | st.lists(json_values(), max_size=4).map(
            lambda values: "\n".join(json.dumps(one) for one in values).encode()
        )
        | json_values().map(lambda one: json.dumps(one, indent=2).encode())
        | st.dictionaries(
            st.sampled_from(["data", "records", "custom_id", "method", "url", "body"]),
            json_values(),
            max_size=4,
        ).map(lambda one: json.dumps(one).encode())
        | st.binary(max_size=200)
        | st.text(max_size=50).map(lambda text: text.encode("utf-8", "surrogatepass"))
        | st.text(st.characters(exclude_categories=["Cs"]), max_size=30).map(
            lambda text: text.encode("utf-16")
        )
    )
    cases = st.tuples(st.builds(edited, structured, st.just([]) | edits()), st.sampled_from(NAMES))

    def check(case: tuple[bytes, str]) -> None:
        read(*case)

    assert for_a_while(cases, check, share=1 / 3) >= ROUND
