"""mixcli batch with probabilities of fields, several questions, thresholds, review and calibration, over a host with a small model."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mixcli.errors import MixcliError
from mixcli.request.json_fields import without
from mixcli.request.output_format import OutputFormat
from tests.conftest import Runner
from tests.support.ports import Port
from tests.support.small_hosts import served_small

SCHEMA = "team (billing|technical|sales), urgent bool, note (a|b)"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    with served_small(tmp_path_factory, {}) as port:
        yield port


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def mails(folder: Path, n: int) -> Path:
    path = folder / "mails.csv"
    rows = (f"{i},mail number {i},{('billing', 'sales')[i % 2]},{i % 3 == 0}\n" for i in range(n))
    path.write_text("id,body,gold,hot\n" + "".join(rows))
    return path


def test_fields_thresholds_review_and_calibration(mixcli: Runner, port: Port, tmp_path: Path) -> None:
    source, out = mails(tmp_path, 40), tmp_path / "out.jsonl"
    command = [
        "batch",
        str(source),
        "-o",
        str(out),
        "--endpoint",
        f"http://127.0.0.1:{port.number}",
        "--column",
        "body",
    ]
    command += ["--schema", SCHEMA, "--confidence"]
    first = mixcli(*command, "--eval", "team=gold", "--eval", "urgent=hot", "--json")
    assert first.returncode == 0, first.stderr
    plain = lines(out)
    for line in plain:
        assert list(line["field_probs"]) == ["team", "urgent", "note"]
        for name, one in line["field_probs"].items():
            assert sum(one["values"].values()) == pytest.approx(1)
            said = line["result"][name]
            assert one["probability"] == one["values"][said if isinstance(said, str) else json.dumps(said)]
    told = json.loads(first.stdout)["fields"]
    right = sum(line["result"]["team"] == ("billing", "sales")[i % 2] for i, line in enumerate(plain))
    assert told["team"]["accuracy"] == pytest.approx(right / 40)
    assert told["urgent"]["n"] == 40
    assert told["team"]["calibration_fit"]["n"] == 40

    # thresholds act on what the journal has: nothing is computed again
    least = sorted(line["field_probs"]["team"]["probability"] for line in plain)[20]
    review = tmp_path / "review.jsonl"
    limits = ["--abstain", f"team={least}", "--abstain", "0", "--review", str(review)]
    again = mixcli(*command, *limits)
    assert again.returncode == 0, again.stderr
    assert "40 from an earlier run" in again.stderr
    doubtful = [line for line in plain if line["field_probs"]["team"]["probability"] < least]
    assert f"{len(doubtful)} records to review" in again.stderr
    for before, after in zip(plain, lines(out), strict=True):
        is_low = before in doubtful
        assert after.get("abstained", []) == ["team"] * is_low
        assert after["result"] == (
            without(before["result"], frozenset({"team"})) if is_low else before["result"]
        )
    listed = lines(review)
    assert {one["id"] for one in listed} == {line["id"] for line in doubtful}
    assert [one["doubt"] for one in listed] == sorted((one["doubt"] for one in listed), reverse=True)
    assert listed[0]["record"]["body"].startswith("mail number")
    assert listed[0]["abstained"]["team"]["value"] in ("billing", "technical", "sales")

    kept = tmp_path / "out.jsonl.calibration.json"
    # a model of random weights is sure of nothing that is so: its temperature is high
    assert told["urgent"]["calibration_fit"]["improves"]
    assert f"--calibration {kept}" in first.stderr
    fitted = json.loads(kept.read_text())
    done = mixcli(*command, "--calibration", str(kept))
    assert done.returncode == 0, done.stderr
    for before, after in zip(plain, lines(out), strict=True):
        raw = before["field_probs"]["urgent"]["values"]["true"]
        odds = (raw / (1 - raw)) ** (1 / fitted["fields"]["urgent"]["temperature"])
        assert after["field_probs"]["urgent"]["values"]["true"] == pytest.approx(odds / (1 + odds))
    assert "another prompt" not in done.stderr
    reworded = mixcli(*command, "--calibration", str(kept), "--prompt", "Sort this: {{ text }}")
    assert "--calibration was fitted for another prompt, or other labels or fields" in reworded.stderr
    other = mixcli(*command[:-2], "a (b|c)", "--confidence", "--calibration", str(kept))
    assert other.returncode == 2
    assert "it was fitted for team, urgent, and this batch asks something else" in other.stderr
    kept.write_text(json.dumps({**fitted, "model": "another"}))
    refused = mixcli(*command, "--calibration", str(kept))
    assert refused.returncode == 2
    assert "was fitted for another, and this run uses" in refused.stderr


def test_questions_become_columns_and_each_has_its_key(mixcli: Runner, port: Port, tmp_path: Path) -> None:
    source, out = mails(tmp_path, 6), tmp_path / "out.jsonl"
    command = [
        "batch",
        str(source),
        "-o",
        str(out),
        "--endpoint",
        f"http://127.0.0.1:{port.number}",
        "--column",
        "body",
    ]
    asks = ["--ask", "mood=Is it good? (good|bad)", "--ask", "words=Say it again."]
    done = mixcli(*command, *asks, "--max-tokens", "3")
    assert done.returncode == 0, done.stderr
    plain = lines(out)
    for line in plain:
        assert list(line["result"]) == ["mood", "words"]
        assert list(line["label_probs"]) == ["mood"]
        assert line["result"]["mood"] == max(line["label_probs"]["mood"], key=line["label_probs"]["mood"].get)
        assert line["finish_reason"].keys() == {"words"}
    n_journal = len((tmp_path / "out.jsonl.journal").read_text().splitlines())
    assert n_journal == 1 + 2 * 6
    more = ["--ask", "who=Who? {team (x|y), urgent bool}", "--confidence", "--abstain", "who.team=1"]
    more += ["--eval", "mood=gold", "--eval", "who.urgent=hot"]
    done = mixcli(*command, *asks, *more, "--max-tokens", "30")
    assert done.returncode == 0, done.stderr
    for before, after in zip(plain, lines(out), strict=True):
        assert after["label_probs"]["mood"] == before["label_probs"]["mood"], "labels depend on no option"
        assert after["abstained"] == ["who.team"]
        assert after["result"]["who"]["team"] is None
        assert isinstance(after["result"]["who"]["urgent"], bool)
    assert "who.urgent:" in done.stdout
    n_journal = len((tmp_path / "out.jsonl.journal").read_text().splitlines())
    assert n_journal == 1 + 2 * 6 + 2 * 6, "the labels were known"


def test_a_question_that_fails_leaves_the_other_answers(mixcli: Runner, port: Port, tmp_path: Path) -> None:
    """The server has no room for the answer of `long`; the labels of `mood` count in the evaluation all the same."""
    source, out = mails(tmp_path, 4), tmp_path / "out.jsonl"
    command = ["batch", str(source), "-o", str(out), "--endpoint", f"http://127.0.0.1:{port.number}"]
    command += ["--column", "body", "--ask", "mood=Is it good? (billing|sales)", "--eval", "mood=gold"]
    failing = ["--ask", f"long={'Why? ' * 2000}"]
    done = mixcli(*command, *failing, "--json")
    assert done.returncode == 3, done.stderr
    for line in lines(out):
        assert list(line["result"]) == ["mood"]
        assert sum(line["label_probs"]["mood"].values()) == pytest.approx(1)
        assert list(line["error"]["questions"]) == ["long"]
        assert line["error"]["message"] == line["error"]["questions"]["long"]
        assert line["error"]["exit_code"] == 4
    told = json.loads(done.stdout)["fields"]["mood"]
    assert (told["n"], told["n_without"]) == (4, 0)
    again = mixcli(*command)
    assert again.returncode == 0, again.stderr
    assert "4 from an earlier run" in again.stderr


def test_ctrl_c_does_not_wait_for_the_questions_of_a_record(tmp_path: Path, home: Path) -> None:
    """Both questions are asked of a server that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as held:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        command = ["batch", str(mails(tmp_path, 1)), "--column", "body", "--endpoint", url, "-m", "silent"]
        process = subprocess.Popen(
            [sys.executable, "-m", "mixcli", *command, "--ask", "a=Why?", "--ask", "b=Who?"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server.settimeout(60)
        for _ in range(2):
            held.enter_context(server.accept()[0])
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130


def test_a_server_that_returns_no_probabilities_is_told_apart() -> None:
    form = OutputFormat(schema={"type": "object"}, confidence=True)
    assert form.body()["field_probs"] is True
    with pytest.raises(MixcliError, match="no probabilities of fields; remove --confidence"):
        form.read("{}", "stop", {})


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            ["--schema", SCHEMA, "--confidence", "--abstain", "tema=0.5"],
            "--abstain tema: no question or field",
        ),
        (["--schema", SCHEMA, "--confidence", "--abstain", "2"], "expected a probability from 0 to 1"),
        (
            ["--schema", SCHEMA, "--confidence", "--abstain", "0.5", "--abstain", "0.6"],
            "has two probabilities",
        ),
        (["--schema", SCHEMA, "--eval", "mood=gold"], "--eval mood: no question or field"),
        (["--schema", SCHEMA, "--eval", "team=nowhere"], "--eval: no column 'nowhere'"),
        (["--ask", "a=Why?", "--confidence"], "no question of --ask has fields"),
        (["--ask", "a=Why? {b}", "--abstain", "0.5"], "no question of --ask has labels"),
        (["--ask", "a=Why?", "--abstain", "b=0.5"], "--abstain b: no question or field"),
        (["--choice", "a,b", "--eval", "gold", "--eval", "hot"], "--eval is given twice"),
        (["--choice", "a,b", "--abstain", "0.5", "--review", "mails.csv"], "--review mails.csv is an input"),
    ],
)
def test_names_that_nothing_has_are_refused_first(
    mixcli: Runner, tmp_path: Path, said: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = mixcli("batch", str(mails(tmp_path, 2)), "--column", "body", *said)
    assert done.returncode == 2
    assert words in done.stderr
