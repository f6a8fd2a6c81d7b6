"""Inputs that can be read in two ways are read rightly, or refused by row and name before anything is asked."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixcli.batch.records import Record, open_records
from mixcli.errors import UsageError


def read(raw: bytes | str, name: str = "", format_: str | None = None) -> list[Any]:
    """Each record as its text, or its fields where it has others, or its fault."""
    raw = raw.encode() if isinstance(raw, str) else raw
    records = open_records(io.BytesIO(raw), name, format_).records
    return [
        record.fault or (record.fields["text"] if set(record.fields) == {"text"} else record.fields)
        for record in records
    ]


A, B = '{"text": "a"}', '{"text": "b"}'
PRETTY = json.dumps({"text": "a", "x": {"y": ["}{", '"']}}, indent=2)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "", "-"])
@pytest.mark.parametrize(
    "raw",
    [
        f"[{A}, {B}]",
        f"[\n  {A},\n  {B}\n]\n",
        f" \n\n[{A}\n,\n{B}]\n\n",
        '["a", "b"]',
        '[\n"a",\n"b"\n]',
        f'{{"data": [{A}, {B}]}}',
        f'{{\n "count": 2,\n "records": [\n{A},\n{B}\n]}}',
        f"{A}\n{B}\n",
        f"{A}\r{B}",
        f"{A}\r\n\r\n{B}",
        f"\ufeff{A}\n{B}",
        f"\ufeff[{A},{B}]",
        '{\n "text": "a"\n}\n{\n "text": "b"\n}',
        '{\n "text": "a"\n}{\n "text": "b"\n}',
    ],
)
def test_json_in_every_shape(raw: str, name: str) -> None:
    assert read(raw, name) == ["a", "b"]


def test_values_over_several_lines_are_whole_records() -> None:
    (record,) = open_records(io.BytesIO(PRETTY.encode()), "x.json").records
    assert (record.id, record.fields["text"], record.nested) == (1, "a", {"x": {"y": ["}{", '"']}})
    assert [
        record.id for record in open_records(io.BytesIO(f"[{PRETTY}, {PRETTY}]".encode()), "").records
    ] == [1, 2]


@pytest.mark.parametrize(
    ("raw", "name", "words"),
    [
        (f"[{A},]", "x.json", "expected a record after the comma that follows record 1"),
        (f"[{A}", "x.json", "is truncated"),
        (f'[{A}, {{"text": "b', "x.json", "in the middle of record 2, which begins in line 1"),
        (f"[{A} {B}]", "x.json", "expected a comma or ] after record 1"),
        (f"[{A}]\n[{B}]", "x.json", "each line of the input is a JSON array|end of the file"),
        ("[1, 2]\n[3, 4]\n", "x.jsonl", "each line of the input is a JSON array"),
        ('{"text": {"0": "a", "1": "b"}, "n": {"0": 1, "1": 2}}', "x.json", "orient='records'"),
        ('{"text": ["a", "b"], "n": [1, 2]}', "x.json", "orient='records'"),
        ('{"columns": ["text"], "index": [0], "data": [["a"]]}', "x.json", "orient='records'"),
        ('{"a1": {"text": "a"}, "a2": {"text": "b"}}', "x.json", "records by name"),
        ('{"texts": ["a", "b"]}', "x.json", "'texts' is a list of values without names"),
        (f'{{"train": [{A}], "test": [{B}]}}', "x.json", "records in 'train' or 'test'"),
        (f'{{"id": 1, "items": [{A}]}}', "x.json", "ambiguous input"),
        (A, "x.txt", "contains JSON"),
        (A, "x.csv", "contains JSON"),
        (f"[\n{A}\n]", "x.txt", "contains JSON"),
        ("id,text\n1,a\n", "-", "looks like a table header"),
        ("Title\tBody\na\tb\n", "", "looks like a table header"),
        ('"id";"text"\n1;a\n', "x.dat", "looks like a table header"),
        ("- text: a\n", "x.yaml", "YAML"),
        ("---\n- text: a\n", "", "YAML"),
        ("{'text': 'a', 'n': 1}\n", "x.jsonl", "x.jsonl is in Python's notation, which batch cannot read"),
        ("[{'text': 'a'}]\n", "-", "the input is in Python's notation"),
        ("<?xml version='1.0'?>", "x.jsonl", "XML"),
        ("<!DOCTYPE html><html>", "x.csv", "a web page"),
        (b"PK\x03\x04" + bytes(50), "x.xlsx", "ZIP"),
        (b"\x1f\x8b\x08" + bytes(50), "x.jsonl", "gunzip"),
        (b"%PDF-1.7\n", "x.txt", "PDF"),
        (b"SQLite format 3\0", "x.csv", "SQLite"),
        (b"PAR1" + bytes(9), "x.parquet", "Parquet"),
        (b"version https://git-lfs.github.com/spec/v1\n", "x.csv", "LFS"),
        ("id,text\n1,ä\n".encode("utf-16"), "x.csv", "UTF-16"),
        ("id,text\n1,ä\n".encode("utf-16-le"), "x.csv", "UTF-16LE"),
        ("id,text\n1,ä\n".encode("utf-16-be"), "x.csv", "UTF-16BE"),
        (bytes(range(256)) * 4, "x", "is not text: 6. % of its first 1,024 bytes"),
        ("a,,b\n1,2,3\n", "x.csv", "column 2 has none, but has values such as '2'"),
        ("a,b,\n1,2,3\n", "x.csv", "column 3 has none"),
        (",text\nx,a\n", "x.csv", "column 1 has none"),
        ("a, a\n", "x.csv", "'a' is given twice, as columns 1 and 2"),
        ("a,b;c\n1,2;3\n4,5;6\n", "x.csv", "separated by commas or by semicolons"),
    ],
)
def test_what_cannot_be_records_is_one_sentence(raw: bytes | str, name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(raw, name)


def test_a_format_that_is_named_counts() -> None:
    assert read(A, "x.txt", "lines") == [A]
    assert read(A, "x.txt", "jsonl") == ["a"]
    assert read("---\n- a", "x.yaml", "lines") == ["---", "- a"]
    assert read("[INST] a", "") == ["[INST] a"]
    assert read("{a} b\n[1] c", "") == ["{a} b", "[1] c"]
    assert read("id,text\n1,a", "x.txt") == ["id,text", "1,a"]
    assert read("Hello, world\nyes,no", "") == ["Hello, world", "yes,no"]


@pytest.mark.parametrize(
    ("raw", "name", "fields"),
    [
        ("a\tb\n1,5\tx\n", "x.csv", {"a": "1,5", "b": "x"}),
        ("a|b\n1|x, y\n", "x.csv", {"a": "1", "b": "x, y"}),
        ("a;b\n1,5;x\n", "x.csv", {"a": "1,5", "b": "x"}),
        ("a,b\n1,x\n", "x.tsv", {"a": "1", "b": "x"}),
        ("a,b;c\n1,x;y\n2,z\n", "x.csv", {"a": "1", "b;c": "x;y"}),
        ('a,"b;c"\n1,x\n', "x.csv", {"a": "1", "b;c": "x"}),
        ("sep=;\na;b\n1;x\n", "x.csv", {"a": "1", "b": "x"}),
        (",a,b\n0,1,x\n1,2,y\n", "x.csv", {"a": "1", "b": "x"}),
        ("a,b,,\n1,x,,\n", "x.csv", {"a": "1", "b": "x"}),
        ("a,b\n1,x,,\n", "x.csv", {"a": "1", "b": "x"}),
        ("a,b,\n1,x\n", "x.csv", {"a": "1", "b": "x"}),
        ("a,,b\n1,,x\n", "x.csv", {"a": "1", "b": "x"}),
        ('a, b\n1, "x, y"\n', "x.csv", {"a": "1", "b": "x, y"}),
        ("a,b\r1,x\r", "x.csv", {"a": "1", "b": "x"}),
        ("a,b\r\n1,x\n", "x.csv", {"a": "1", "b": "x"}),
        ('\ufeff"a","b"\n1,x\n', "x.csv", {"a": "1", "b": "x"}),
        ("\n\na,b\n\n1,x\n", "x.csv", {"a": "1", "b": "x"}),
        ("Customer Name , b\nAnn,x\n", "x.csv", {"Customer Name": "Ann", "b": "x"}),
    ],
)
def test_tables_as_programs_write_them(raw: str, name: str, fields: dict[str, str]) -> None:
    assert read(raw, name)[0] == fields


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ('1,"open\n2,ok\n3,"fine"\n4,x', ["opened in this row", "ok", "fine", "x"]),
        ('1,a\n2,"open\n3,ok\n' + "4,x\n" * 50, ["a", "opened in this row", "ok", "x"]),
        ('1,"two\nlines"\n2,b', ["two\nlines", "b"]),
        ('1,"open', ["opened in this row"]),
    ],
)
def test_a_quote_that_never_closes_names_its_row_and_no_other_is_lost(rows: str, expected: list[str]) -> None:
    records = list(open_records(io.BytesIO(f"id,text\n{rows}".encode()), "x.csv").records)
    for record, words in zip(records, expected, strict=False):
        assert words in (record.fault or record.fields["text"])
    bad = [record for record in records if record.fault]
    assert all(
        record.id == 2 + rows.split("\n").index(next(row for row in rows.split("\n") if "open" in row))
        for record in bad
    )
    assert len(records) - len(bad) == rows.count("\n") + 1 - len(bad) - rows.count("two") - rows.endswith(
        "\n"
    )


def test_an_array_of_any_length_takes_no_memory(tmp_path: Path) -> None:
    with (tmp_path / "in.json").open("wb") as file:
        file.write(b"[" + b",".join([b'{"text": "%b"}' % (b"words" * 200)] * 20_000) + b"]")
    tracemalloc.start()
    with (tmp_path / "in.json").open("rb") as stream:
        n = sum(len(record.fields["text"]) == 1000 for record in open_records(stream, "in.json").records)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 20_000
    assert peak < 6 << 20


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=5),
            st.text(max_size=20) | st.integers() | st.none() | st.lists(st.text(max_size=3)),
            min_size=1,
        ),
        min_size=2,
        max_size=5,
    ),
    st.sampled_from([None, 0, 3]),
)
def test_what_json_writes_is_read_back(values: list[dict[str, Any]], indent: int | None) -> None:
    found = open_records(io.BytesIO(json.dumps(values, indent=indent).encode()), "x.json").records
    for record, value in zip(found, values, strict=True):
        assert not record.fault
        assert set(record.fields) == set(value)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(
            [
                b"{",
                b"}",
                b"[",
                b"]",
                b'"',
                b",",
                b":",
                b"\n",
                b"\r",
                b"a",
                b"1",
                b'{"text": "x"}',
                b"\\",
                b"\0",
                b"\xff",
                b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}',
                b'"text"',
                b"id,text\n",
                b"\t",
                b";",
            ]
        ),
        max_size=40,
    ),
    st.sampled_from(["", "x.json", "x.jsonl", "x.csv", "x.tsv", "x.txt"]),
)
def test_any_bytes_are_records_or_a_sentence(pieces: list[bytes], name: str) -> None:
    try:
        records = list(open_records(io.BytesIO(b"".join(pieces)), name).records)
    except UsageError as error:
        assert len(str(error)) > 10
    else:
        for record in records:  # whatever is asked about can be sent, and is named
            assert isinstance(record.id, str) or record.id > 0
            json.dumps([record.id, record.fields, record.request], ensure_ascii=False).encode()


def test_record_ids_are_those_of_their_lines() -> None:
    assert [record.id for record in open_records(io.BytesIO(b"a\n\nb\rc\r\nd"), "").records] == [1, 3, 4, 5]
    assert Record(1, {}) == Record(1, {}, nested={"a": 1})
