"""Records out of every format, with everything wrong with them that files have."""

import gc
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from mixcli.batch.job import TemplateJob, prompt_template
from mixcli.batch.lines import read_lines
from mixcli.batch.records import Record, open_records
from mixcli.batch.runner import BatchResult, BatchSettings, Tally, run
from mixcli.errors import UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.request.output_format import OutputFormat


def records(raw: bytes, name: str = "", format_: str | None = None) -> list[Record]:
    return list(open_records(io.BytesIO(raw), name, format_).records)


def test_plain_lines_are_numbered_as_an_editor_does_and_empty_ones_are_no_records() -> None:
    found = records("one\r\n\n  \nzwei ä\nlast".encode())
    assert [(record.id, record.fields["text"]) for record in found] == [
        (1, "one"),
        (4, "zwei ä"),
        (5, "last"),
    ]


def test_the_first_line_tells_jsonl_from_lines() -> None:
    assert open_records(io.BytesIO(b'{"text": "a"}\n'), "").format == "jsonl"
    assert open_records(io.BytesIO(b"{not json\n"), "").format == "lines"
    assert open_records(io.BytesIO(b"3\n4\n"), "").format == "lines"
    assert open_records(io.BytesIO(b"3\n"), "x.jsonl").format == "jsonl"
    assert open_records(io.BytesIO(b""), "").format == "lines"


def test_json_objects_keep_their_ids_and_give_every_field_as_text() -> None:
    first, second, third = records(
        b'{"id": "a-1", "text": "x", "n": 3, "tags": ["b", "\xc3\xa4"], "none": null}\n{"id": true, "text": "y"}\n"bare"\n',
        "x.jsonl",
    )
    assert first == Record("a-1", {"id": "a-1", "text": "x", "n": "3", "tags": '["b", "ä"]', "none": ""})
    assert second.id == 2, "true is no id"
    assert third == Record(3, {"text": "bare"})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\xff\xfe\xfa", "byte 1 of the line is not UTF-8"),
        (b'{"text": "caf\xe9"}', "byte 14 of the line is not UTF-8"),
        (b'{"text": "a\x00b"}', "character 12 of the line is a NUL"),
        (b'{"text": "a', "not JSON"),
        (b"[1, 2]", "the line must be an object or a string, not an array"),
        (b"17", "the line must be an object or a string, not a number"),
        (b"null", "the line must be an object or a string, not null"),
        (b'{"text": "\\ud83d"}', "a lone surrogate"),
        (b'{"id": "\\udc00", "text": "a"}', "a lone surrogate"),
        (b"[" * 200_000, "too deep"),
        (b'{"text": "a", "more": ' + b"[" * 300 + b"]" * 300 + b"}", "too deep"),
        (b'{"text": ' + b"1" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_bad_line_is_one_bad_record_and_the_rest_goes_on(line: bytes, words: str) -> None:
    before, bad, after = records(b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n', "x.jsonl")
    assert (before.fault, after.fault) == ("", "")
    assert (bad.id, after.id) == (2, 3)
    assert words in bad.fault


def test_a_mark_at_the_beginning_is_no_text() -> None:
    assert records(b"\xef\xbb\xbfone\n")[0].fields == {"text": "one"}
    assert records(b'\xef\xbb\xbf{"text": "one"}\n')[0].fields == {"text": "one"}
    assert open_records(io.BytesIO(b"\xef\xbb\xbfid,text\n1,a\n"), "x.csv").columns == ("id", "text")
    with pytest.raises(UsageError, match="iconv"):
        records("one".encode("utf-16"))


class Endless(io.RawIOBase):
    """A line of so many bytes, and a short one after it."""

    def __init__(self, n_bytes: int) -> None:
        self._left = n_bytes
        self._tail = b"\nshort\n"

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        n = min(len(buffer), self._left)
        if n:
            buffer[:n] = b"x" * n
            self._left -= n
            return n
        tail, self._tail = self._tail[: len(buffer)], self._tail[len(buffer) :]
        buffer[: len(tail)] = tail
        return len(tail)


def test_a_line_of_a_gigabyte_costs_no_memory() -> None:
    tracemalloc.start()
    long, short = read_lines(io.BufferedReader(Endless(1 << 30), 1 << 16), limit=1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert long.fault == "the line is 1,073,741,824 bytes long; the limit is 1,048,576"
    assert (short.number, short.text) == (2, "short")
    assert peak < 8 << 20


def test_a_line_as_long_as_the_limit_is_taken() -> None:
    assert [line.text for line in read_lines(io.BytesIO(b"12345\n12345"), limit=5)] == ["12345", "12345"]
    assert [line.fault != "" for line in read_lines(io.BytesIO(b"123456\n1"), limit=5)] == [True, False]


def test_tables_name_their_fields_and_a_quoted_one_may_span_lines() -> None:
    source = open_records(io.BytesIO(b'id,text\r\n7,"two\r\nlines, ""quoted"""\r\n,plain\r\n'), "mails.csv")
    assert source.columns == ("id", "text")
    assert list(source.records) == [
        Record("7", {"id": "7", "text": 'two\nlines, "quoted"'}),
        Record(4, {"id": "", "text": "plain"}),
    ]


def test_semicolons_and_tabs() -> None:
    assert records(b"a;b\n1,5;x\n", "x.csv")[0].fields == {"a": "1,5", "b": "x"}
    assert records(b"a\tb\n1,5\tx\n", "x.tsv")[0].fields == {"a": "1,5", "b": "x"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"only one", "1 field, the header 2"),
        (b"1,2,3", "3 fields, the header 2"),
        (b'1,"a"b', "cannot be read"),
        (b"1,\xff", "not UTF-8"),
        (b"1,\x00", "NUL"),
    ],
)
def test_a_bad_row_is_one_bad_record(row: bytes, words: str) -> None:
    before, bad, after = records(b"id,text\nx,y\n" + row + b"\nlast,row\n", "x.csv")
    assert (before.id, after.id) == ("x", "last")
    assert words in bad.fault
    assert bad.id == 3


@pytest.mark.parametrize("header", [b"a,a\n1,2\n", b"a,\n1,2\n", b"\xff\n1\n"])
def test_a_header_that_names_nothing_is_refused(header: bytes) -> None:
    with pytest.raises(UsageError, match="header"):
        records(header, "x.csv")


REQUEST = {
    "custom_id": "request-1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "any", "messages": [{"role": "user", "content": "Hello"}]},
}


def test_openais_batch_files_are_known_by_their_first_line() -> None:
    other = {**REQUEST, "custom_id": "r2", "url": "/v1/embeddings"}
    lacking = {"custom_id": "r3", "method": "POST", "url": "/v1/chat/completions"}
    lines = [REQUEST, other, lacking, {**REQUEST, "body": "text"}, {**REQUEST, "custom_id": 5}]
    raw = "\n".join(map(json.dumps, lines)).encode()
    source = open_records(io.BytesIO(raw), "requests.jsonl")
    assert source.format == "openai"
    good, *bad = source.records
    assert good == Record("request-1", {}, REQUEST["body"])
    assert [record.id for record in bad] == ["r2", "r3", "request-1", 5]
    assert bad[0].fault == 'the url "/v1/embeddings" is not supported; use "/v1/chat/completions"'
    assert "lacks body" in bad[1].fault
    assert "not a JSON object" in bad[2].fault
    assert bad[3].fault == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [("method", None, "method null is"), ("method", "G\nT", r'method "G\nT" is'), ("url", [1], "url [1] is")],
)
def test_a_method_or_url_of_another_kind_is_named_as_json(name: str, value: object, words: str) -> None:
    raw = json.dumps({**REQUEST, name: value}).encode()
    (record,) = open_records(io.BytesIO(raw), "requests.jsonl").records
    assert words in record.fault
    assert "\n" not in record.fault


def test_records_come_before_the_input_ends() -> None:
    """What a slow program pipes in is answered while it goes on."""
    import os

    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as pipe:
        pipe.write(b"first\n")
        found: Iterator[Record] = open_records(stream, "").records
        assert next(found).fields == {"text": "first"}
        pipe.write(b"second\n")
        assert next(found).fields == {"text": "second"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records() -> None:
    """`yes | mixcli batch -`: what is kept of a record is let go when its line is written."""
    sizes: list[int] = []
    answer = ChatCompletion(
        {"choices": [{"message": {"content": "ham"}, "finish_reason": "stop"}], "usage": {}}
    )

    def look(_done: BatchResult, tally: Tally) -> None:
        if tally.n_done in (2000, 6000):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])

    class Endless(io.RawIOBase):
        """6,000 equal lines, without an end that is known."""

        def __init__(self) -> None:
            self.left = 6000

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if not self.left:
                return 0
            self.left -= 1
            buffer[:9] = b"text ham\n"
            return 9

    job = TemplateJob(prompt_template("What is it?"), form=OutputFormat(labels=("ham", "spam")))
    records = open_records(io.BufferedReader(Endless()), "-").records  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        tally = run(
            records, job, lambda _body, _key: answer, None, BatchSettings("x", 8), lambda _line: None, look
        )
    finally:
        tracemalloc.stop()
    assert (tally.n_done, tally.n_failed) == (6000, 0)
    assert sizes[1] - sizes[0] < 100_000
