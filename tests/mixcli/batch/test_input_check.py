"""What would go wrong with every record is refused before anything is asked; whole batches against a server in this process."""

import io
import json
from collections.abc import Callable, Iterator
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


class Server:
    """Answers with the first label, or repeats what it was asked."""

    identity, width = "here", 1

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, body: ChatBody, _key: str) -> ChatCompletion:
        sent: Any = body.to_json()
        prompt = sent["messages"][-1]["content"]
        self.asked.append(prompt)
        labels = sent.get("structured_outputs", {}).get("choice")
        message = {"role": "assistant", "content": labels[0] if labels else prompt}
        choices = [{"message": message, "finish_reason": "stop"}]
        return ChatCompletion({"choices": choices, "usage": {"prompt_tokens": 1}})

    def close(self) -> None: ...


Batch = Callable[..., tuple[Report, list[dict[str, Any]], Server]]


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    """Run a batch over a file of these bytes; gives the report, the lines and the server."""

    def run(
        raw: str,
        name: str = "in.jsonl",
        prompt: str | None = None,
        *,
        choice: str | None = None,
        gold: str | None = None,
        **more: Any,
    ) -> tuple[Report, list[dict[str, Any]], Server]:
        source, out = tmp_path / name, tmp_path / "out.jsonl"
        source.write_text(raw, "utf-8", newline="")
        server = Server()
        for_prompts = more.pop("for_prompts", ())
        model = more.pop("model", None)
        job = TemplateJob(
            prompt_template(prompt), form=form_of(choice, None, None, None, more.pop("abstain", None)), **more
        )
        order = BatchOptions(
            str(source),
            out,
            tmp_path / "journal",
            None,
            {"": gold} if gold else {},
            BatchSettings("", 4),
            for_prompts,
            model,
        )
        try:
            report = run_batch(order, job, lambda: server)
        except MixcliError as error:
            error.add_note(f"asked {len(server.asked)}")
            raise
        return report, [json.loads(line) for line in out.read_text().splitlines()], server

    yield run


@pytest.mark.parametrize(
    ("raw", "prompt", "asked"),
    [
        ('{"meta": {"user": {"name": "Ann"}}}', "{{ meta.user.name }}", "Ann"),
        ('{"tags": ["a", "b"], "x": 1}', "{{ tags[1] }}", "b"),
        ('{"tags": ["a", "b"], "x": 1}', "{{ tags }}", '["a", "b"]'),
        (
            '{"n": 3, "ok": true, "none": null, "f": 1.5}',
            "{{ n }}|{{ ok }}|{{ none }}|{{ f }}",
            "3|true||1.5",
        ),
        ('{"Customer Name": "Ann", "b": 1}', "{{ Customer Name }}", "Ann"),
    ],
)
def test_places_find_their_fields(batch: Batch, raw: str, prompt: str, asked: str) -> None:
    assert batch(raw, prompt=prompt)[2].asked == [asked]


@pytest.mark.parametrize(
    ("raw", "name", "more", "words"),
    [
        (
            '{"body": "a", "n": 1}\n',
            "in.jsonl",
            {"prompt": "{{ Body }}"},
            "record 1: {{ Body }} has no value; fields are body, n; did you mean body?",
        ),
        (
            '{"a": {"b": 1}, "n": 1}\n' * 2,
            "in.jsonl",
            {"prompt": "{{ a.c }}"},
            "all 2 records are invalid; first error: record 1: {{ a.c }} has no value: a has no c; it has b",
        ),
        ('{"messages": [{"role": "user"}]}\n', "in.jsonl", {}, "'messages', is an object or a list"),
        ("x\ny\n", "in.csv", {"column": "X"}, "no field 'X'; fields are x; did you mean x?"),
        ("text,n\na,1\n", "in.csv", {"keep": ("N",)}, "did you mean n?"),
        ('{"text": "a"}\n', "in.jsonl", {"keep": ("n",)}, "--keep: no record has a field 'n'"),
        ('{"text": "a"}\n', "in.jsonl", {"gold": "Gold"}, "--eval: no record has a field 'Gold'"),
        (
            '{"text": "a", "gold": "Spam "}\n{"text": "a", "gold": "SPAM"}\n',
            "in.jsonl",
            {"gold": "gold", "choice": "spam,ham"},
            "with the label 'Spam', and --choice has 'spam'",
        ),
        (
            '{"text": "a", "gold": "x"}\n',
            "in.jsonl",
            {"gold": "gold", "choice": "spam,ham"},
            "no record has one of the labels",
        ),
        (
            '{"review": "a"}\n{"txt": "b"}\n',
            "in.jsonl",
            {},
            "is ambiguous: review (record 1) and txt (record 2)",
        ),
        (
            '{"text": "a"}\n{"txt": "b"}\n',
            "in.jsonl",
            {},
            "is ambiguous: text (record 1) and txt (record 2)",
        ),
        (
            '{"id": 7}\n',
            "in.jsonl",
            {},
            "{{ text }} has no value; fields are id; pass --column NAME, or write {{ NAME }} in the prompt",
        ),
        ("I love this.\nNot this.\n", "in.csv", {}, "looks like a record, not a header"),
        ("5\n6\n", "in.csv", {}, "looks like a record, not a header"),
        ("good\nbad\ngood\n", "in.csv", {}, "looks like a record, not a header"),
        (
            '{"text": "a"}\n',
            "in.jsonl",
            {"variables": {"text": "b"}},
            "-v text: the record has a field of that name",
        ),
        ('[{"text": "a"}, {"text": "b"}', "in.json", {}, "is truncated"),
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n'[14:], "in.jsonl", {}, "'text' is given twice"),
    ],
)
def test_what_would_go_wrong_with_every_record_is_told_before_the_first_request(
    batch: Batch, tmp_path: Path, raw: str, name: str, more: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        batch(raw, name, **more)
    assert words in str(raised.value)
    assert raised.value.__notes__ == ["asked 0"]
    assert not (tmp_path / "out.jsonl").exists()


def test_gold_labels_that_cannot_be_answered_are_counted(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f'{{"text": "a", "gold": "{gold}"}}\n' for gold in ("spam", "eggs", "eggs"))
    report, _, _ = batch(rows, gold="gold", choice="spam,ham")
    assert "2 records with a label that is not in --choice ('eggs')" in capsys.readouterr().err
    assert report.evaluation is not None
    assert report.evaluation.to_json()["accuracy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("raw", "name"), [("", "in.jsonl"), ("id,text\n", "in.csv"), ("[]", "in.json"), ("\n\n", "in.txt")]
)
def test_an_input_without_records_asks_nothing_and_says_so(
    batch: Batch, capsys: pytest.CaptureFixture[str], raw: str, name: str
) -> None:
    report, lines, server = batch(raw, name)
    assert (lines, server.asked, report.tally.n_done) == ([], [], 0)
    assert "has no records" in report.sentence
    assert not capsys.readouterr().err  # it is said once, by the report


def request(name: str, text: str = "hi", **body: Any) -> str:
    messages = [{"role": "user", "content": text}]
    return (
        json.dumps(
            {
                "custom_id": name,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"messages": messages, **body},
            }
        )
        + "\n"
    )


def test_the_same_request_with_two_custom_ids_has_two_ids_and_a_custom_id_comes_once(batch: Batch) -> None:
    for _ in range(2):  # the second time out of the journal
        _, (first, second, third), _ = batch(request("a") + request("b") + request("a", "ho"))
        assert [line["custom_id"] for line in (first, second, third)] == ["a", "b", "a"]
        assert first["id"] != second["id"]
        assert first["response"]["request_id"] != second["response"]["request_id"]
        assert "duplicate custom_id 'a', first used in line 1" in third["error"]["message"]


def test_options_that_whole_requests_ignore_are_refused(batch: Batch) -> None:
    with pytest.raises(UsageError, match="remove --prompt, --temperature"):
        batch(request("a"), for_prompts=("--prompt", "--temperature"))
    _, lines, _ = batch(request("a", model="x") + request("b", model="y"), model="y")
    assert 'the request names the model "x", but -m is "y"' in lines[0]["error"]["message"]
    assert lines[1]["error"] is None
    array = f"[{request('a')}, {request('b')}]"
    assert [line["custom_id"] for line in batch(array, "in.json")[1]] == ["a", "b"]


def test_a_text_among_requests_is_no_request() -> None:
    good, bad = open_records(io.BytesIO(f'[{request("a")}, "b"]'.encode()), "x.json").records
    assert (good.fault, bad.fault) == (
        "",
        "the record must be an object like the other requests, not a string",
    )


@pytest.mark.parametrize("identity", [None, True, 1.5, "", ["a"], {}])
def test_a_custom_id_is_a_text(identity: Any) -> None:
    good, bad = open_records(
        io.BytesIO((request("a") + json.dumps({**json.loads(request("a")), "custom_id": identity})).encode()),
        "",
    ).records
    assert (good.fault, bad.id) == ("", 2 if identity != "" else "")
    assert "must be a non-empty string" in bad.fault


def test_another_threshold_is_applied_to_what_is_known(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Server.__call__

    def with_probs(self: Server, body: ChatBody, key: str) -> ChatCompletion:
        answer: Any = genuine(self, body, key).body
        choice = {**answer["choices"][0], "label_probs": {"spam": 0.7, "ham": 0.3}}
        return ChatCompletion({**answer, "choices": [choice]})

    monkeypatch.setattr(Server, "__call__", with_probs)
    results = [
        batch('{"text": "a"}', choice="spam,ham", abstain=abstain)[1][0]["result"]
        for abstain in (0.9, 0.5, 0.9, None)
    ]
    assert results == [None, "spam", None, "spam"]


def test_ids_that_cannot_tell_records_apart_are_told_before_the_first_request(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = '{"id": {"a": 1}, "text": "a"}\n{"id": 1, "text": "b"}\n{"id": 1.5, "text": "c"}\n'
    batch(rows)
    told = capsys.readouterr().err
    assert '2 records without a valid id (record 1: {"a": 1})' in told
    assert "1 record with a duplicate id (record 2: 1)" in told


def test_a_null_is_a_fault_only_where_it_is_the_text(batch: Batch) -> None:
    _, lines, server = batch('{"id": 1, "text": null, "x": 1}\n{"id": 2, "text": "a", "x": null}\n')
    assert "{{ text }} has no value: the field 'text' is null" in lines[0]["error"]["message"]
    assert server.asked == ["a"]


def test_a_batch_that_keeps_nothing_leaves_no_journal(batch: Batch, tmp_path: Path) -> None:
    batch("")
    assert not (tmp_path / "journal").exists()


def test_a_batch_of_a_moment_has_no_rate(batch: Batch) -> None:
    report, _, _ = batch('{"text": "a"}\n')
    assert "/s" not in report.sentence
