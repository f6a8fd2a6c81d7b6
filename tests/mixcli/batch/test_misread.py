"""What would be read as something else, or answered with something else, without a word."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from mixcli.batch.batch import BatchOptions, Report, run_batch
from mixcli.batch.job import TemplateJob, prompt_template
from mixcli.batch.records import open_records
from mixcli.batch.runner import BatchSettings
from mixcli.errors import MixcliError, UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.output_format import form_of


class Saying:
    """A server that says what it was made with, whatever it is asked."""

    identity, width = "a server", 1

    def __init__(self, said: str = "fine") -> None:
        self.said = said
        self.asked: list[str] = []

    def __call__(self, body: ChatBody, _key: str) -> ChatCompletion:
        sent: Any = body.to_json()
        self.asked.append(sent["messages"][-1]["content"])
        message = {"role": "assistant", "content": self.said}
        return ChatCompletion({"choices": [{"message": message, "finish_reason": "stop"}], "usage": {}})

    def close(self) -> None: ...


def batch(source: Path, server: Saying, prompt: str | None = None, **more: Any) -> tuple[Report, list[Any]]:
    out = source.with_name("out.jsonl")
    job = TemplateJob(prompt_template(prompt), **more)
    report = run_batch(
        BatchOptions(str(source), out, None, None, {}, BatchSettings("", 4)), job, lambda: server
    )
    return report, [json.loads(line) for line in out.read_text("utf-8").splitlines()]


@pytest.mark.parametrize(
    ("raw", "name", "expected"),
    [
        (b"one\n\xef\xbb\xbftwo\n", "x.txt", [(1, "one"), (2, "two")]),
        (b'{"text": "one"}\n\xef\xbb\xbf{"text": "two"}\n', "x.jsonl", [(1, "one"), (2, "two")]),
        (b"custom_id,text\na1,one\n,two\n", "x.csv", [("a1", "one"), (3, "two")]),
        (b"id,text\n1,one\n\xef\xbb\xbfid, text\n2,two\n", "x.csv", [("1", "one"), (3, None), ("2", "two")]),
        (b"text\none\ntext\n", "x.csv", [(2, "one"), (3, "text")]),
    ],
)
def test_joined_files_and_names_of_records(raw: bytes, name: str, expected: list[tuple[Any, Any]]) -> None:
    found = list(open_records(io.BytesIO(raw), name).records)
    assert [(one.id, one.fields.get("text")) for one in found] == expected
    assert all("the row is the header again" in one.fault for one in found if one.fault)


@pytest.mark.parametrize(
    ("number", "words"),
    [("1e400", "the number 1e400 is too large"), ("1" * 5000, "a whole number of 5,000 digits is too large")],
)
def test_a_number_that_cannot_be_read_is_a_fault(number: str, words: str) -> None:
    (bad,) = open_records(io.BytesIO(f'{{"text": {number}}}\n'.encode()), "x.jsonl").records
    assert bad.fault == f"the line is not JSON: {words}"


@pytest.mark.parametrize(
    ("raw", "column"), [('{"body": "a record"}\n', None), ('{"a": "x", "body": "a record"}\n', "body")]
)
def test_a_variable_never_loses_its_place_to_a_field(tmp_path: Path, raw: str, column: str | None) -> None:
    (tmp_path / "in.jsonl").write_text(raw)
    server = Saying()
    with pytest.raises(UsageError, match=r"-v text: \{\{ text \}\} is the field 'body' here; rename"):
        batch(
            tmp_path / "in.jsonl",
            server,
            "{{ text }}: {{ body }}",
            variables={"text": "Sum up"},
            column=column,
        )
    assert not server.asked


@pytest.mark.parametrize("place", ["{text}", "{ text }", "{{ text } now"])
def test_a_place_in_other_braces_is_told(
    tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.txt").write_text("a record\n")
    server = Saying()
    batch(tmp_path / "in.txt", server, f"Sum up: {place}.")
    assert "which is sent as it is; write a field's place as {{ text }}" in capsys.readouterr().err
    batch(tmp_path / "in.txt", server, "Sum up as {name}: {{ text }}, not {text}.")
    assert capsys.readouterr().err == ""


def test_gold_labels_below_a_field_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a", "meta": {"gold": "fine"}}\n{"text": "b", "meta": {"gold": "ham"}}\n')
    order = BatchOptions(str(source), None, None, None, {"": "meta.gold"}, BatchSettings(""))
    form = form_of("fine,bad", None, None, None, None)
    report = run_batch(order, TemplateJob(prompt_template(None), form=form), lambda: Saying("fine"))
    assert report.evaluation is not None
    assert report.evaluation.to_json()["n"] == 2
    assert "1 record with a label that is not in --choice ('ham')" in capsys.readouterr().err


def test_records_without_a_text_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.csv").write_text("id,text\na,one\nb,\nc,  \n")
    batch(tmp_path / "in.csv", Saying())
    assert (
        "2 records with an empty text (record b): the model is asked all the same" in capsys.readouterr().err
    )
    batch(tmp_path / "in.csv", Saying(), "{{ id }}")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('{"name": "Ann", "age": "3"}', "age is a text, not of type integer"),
        ('{"answer": "Ann"}', "name is missing"),
        ('{"name": "Ann", "age": 3, "age": 4}', "'age' is given twice"),
        ('{"name": "Ann", "age": NaN}', "NaN is not a JSON number"),
        ('{"name": "Ann", "age": 1e999}', "the number 1e999 is too large"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_a_server_that_ignores_the_schema_fails_that_record_only(
    tmp_path: Path, said: str, words: str
) -> None:
    (tmp_path / "in.txt").write_text("a\nb\n")
    report, lines = batch(
        tmp_path / "in.txt", Saying(said), form=form_of(None, "name, age int", None, None, None)
    )
    assert report.tally.n_failed == 2
    assert all(words in line["error"]["message"] for line in lines)


def test_an_input_that_loses_records_while_it_is_read_is_not_published(tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"{'word ' * 300}{n}\n" for n in range(100)))  # more than is read ahead

    def loaded() -> Saying:
        source.write_text("text 0\n")  # what an editor does meanwhile
        return Saying()

    order = BatchOptions(str(source), tmp_path / "out", None, None, {}, BatchSettings("", 4))
    with pytest.raises(MixcliError, match=r"in.txt was changed .*: 100 records when it was checked, \d+ now"):
        run_batch(order, TemplateJob(prompt_template(None)), loaded)
    assert not (tmp_path / "out").exists()
