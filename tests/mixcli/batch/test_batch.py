"""mixcli batch as a process, with the demo: formats, order, kills, dying hosts, evaluation."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mixcli.client.openai import HostClient
from mixcli.client.process import hosts
from mixcli.system.paths import runtime_dir
from tests.conftest import Runner
from tests.support.waiting import wait_for

pytestmark = pytest.mark.model

# one likely and one absurd continuation, so that no last bit of a logit decides
PLACES = {"France": "Paris", "Italy": "Rome", "England": "London", "Germany": "Berlin", "Spain": "Madrid"}
CAPITALS = ",".join(PLACES.values())
ASK = ("--prompt", "The capital of {{ text }} is called?", "--choice", CAPITALS, "--ctx", "1024")


def countries(n: int) -> list[str]:
    names = list(PLACES)
    return [names[index % len(names)] for index in range(n)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def answers(path: Path) -> list[tuple[Any, Any]]:
    return [(line["id"], line.get("result", line.get("error"))) for line in lines_of(path)]


def n_done() -> int:
    """How many requests the one loaded model has answered since it was loaded."""
    (socket,) = runtime_dir().glob("*.sock")
    return HostClient(socket).health().counts.n_requests_done


def start(*args: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "mixcli", *args], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "countries.txt"
    path.write_text("".join(f"{name}\n" for name in countries(60)), "utf-8")
    return path


@pytest.mark.slow
def test_labels_in_order_with_probabilities_and_usage(
    mixcli: Runner, with_demo: Path, tmp_path: Path
) -> None:
    source = tmp_path / "mails.csv"
    source.write_text(
        "id,country,gold\n" + "".join(f"m{n},{name},{PLACES[name]}\n" for n, name in enumerate(countries(12)))
    )
    out = tmp_path / "out.jsonl"
    done = mixcli(
        "batch", str(source), "-o", str(out), *ASK, "--column", "country", "--keep", "gold", "--eval", "gold"
    )
    assert done.returncode == 0, done.stderr
    found = lines_of(out)
    assert [line["id"] for line in found] == [f"m{n}" for n in range(12)]
    assert [line["gold"] for line in found] == [PLACES[name] for name in countries(12)]
    for line in found:
        assert sum(line["label_probs"].values()) == pytest.approx(1)
        assert max(line["label_probs"], key=line["label_probs"].get) == line["result"]
        assert line["usage"]["prompt_tokens"] > 5
    right = sum(line["result"] == line["gold"] for line in found)
    assert right >= 10, "the demo knows its capitals"
    assert f"accuracy {right / 12:.3f}" in done.stdout
    assert "gold \\ answer" in done.stdout
    assert "12 records" in done.stderr
    assert not out.with_name("out.jsonl.part").exists()


@pytest.mark.slow
def test_bad_records_are_error_lines_and_exit_3_and_the_rest_is_answered(
    mixcli: Runner, with_demo: Path
) -> None:
    raw = b'{"text": "France"}\n\xff\xfe\n{"text": "It\n{"other": 1, "more": 2}\n{"id": "last", "text": "Italy"}\n'
    done = mixcli("batch", "-", *ASK, stdin=raw)
    assert done.returncode == 3
    first, *bad, last = map(json.loads, done.stdout.splitlines())
    assert first["result"] in PLACES.values()
    assert (last["id"], last["result"] in PLACES.values()) == ("last", True)
    assert [line["id"] for line in bad] == [2, 3, 4]
    for line, words in zip(
        bad, ("not UTF-8", "not JSON", "{{ text }} has no value; fields are more, other"), strict=True
    ):
        assert words in line["error"]["message"]
    assert "3 of 5 records failed" in done.stderr
    stopped = mixcli("batch", "-", *ASK, "--max-errors", "1", stdin=raw)
    assert stopped.returncode == 3
    assert "more than --max-errors 1" in stopped.stderr


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_added_records_only_themselves(
    mixcli: Runner, with_demo: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    assert mixcli("batch", str(texts), "-o", str(out), *ASK).returncode == 0
    first, computed = out.read_bytes(), n_done()
    assert computed == 60
    again = mixcli("batch", str(texts), "-o", str(out), *ASK)
    assert "60 from an earlier run" in again.stderr
    assert (out.read_bytes(), n_done()) == (first, computed)
    texts.write_text("new first line\n" + texts.read_text() + "new last line\n")
    assert "60 from an earlier run" in mixcli("batch", str(texts), "-o", str(out), *ASK).stderr
    assert n_done() == computed + 2
    assert [result for _, result in answers(out)][1:-1] == [
        json.loads(line)["result"] for line in first.splitlines()
    ]
    other = mixcli("batch", str(texts), "-o", str(out), *ASK, "--system", "Be exact.")
    assert "known" not in other.stderr, "another question is another answer"


@pytest.mark.slow
def test_killed_at_ten_moments_it_ends_with_the_same_file_and_nothing_computed_twice(
    mixcli: Runner, with_demo: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "countries.txt"
    texts.write_text(
        "".join(f"{name}{' ' * (n % 3)}{'!' * (n // 40)}\n" for n, name in enumerate(countries(220)))
    )
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert mixcli("batch", str(texts), "-o", str(whole), *ASK, timeout=600).returncode == 0
    before = n_done()
    chance = random.Random(8)
    journal = out.with_name("out.jsonl.journal")
    for moment in range(1, 11):
        process = start("batch", str(texts), "-o", str(out), *ASK)
        # the last time with more left than is asked at once, which may come all in one step
        wait_for(lambda n=moment: journal.exists() and len(journal.read_bytes().splitlines()) > n * 14, 120)
        time.sleep(chance.random() * 0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert not out.exists(), "a file that is there is whole"
    assert mixcli("batch", str(texts), "-o", str(out), *ASK, timeout=600).returncode == 0
    assert answers(out) == answers(whole)
    places = [line["n"] for line in map(json.loads, journal.read_text().splitlines()[1:])]
    assert sorted(places) == list(range(220))
    # what was in flight when its asker was killed is dropped by the host, or its answer is kept there for the next run
    assert n_done() - before <= 220


@pytest.mark.slow
def test_a_host_that_dies_in_the_middle_is_started_again(
    mixcli: Runner, with_demo: Path, texts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    process = start("batch", str(texts), "-o", str(out), *ASK)
    journal = out.with_name("out.jsonl.journal")
    wait_for(lambda: journal.exists() and len(journal.read_bytes().splitlines()) > 10, 120)
    (host,) = hosts()
    os.kill(host.pid, signal.SIGKILL)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert b"restarting it" in err
    assert len(lines_of(out)) == 60
    assert all("result" in line for line in lines_of(out))


@pytest.mark.slow
def test_lines_come_while_the_input_goes_on(mixcli: Runner, with_demo: Path) -> None:
    process = start("batch", "-", *ASK, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"France\n")
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    assert first["id"] == 1
    process.stdin.write(b"Italy\n")
    process.stdin.close()
    assert json.loads(process.stdout.readline())["id"] == 2
    assert process.wait(60) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()


@pytest.mark.slow
def test_a_reader_that_leaves_is_exit_141_and_ctrl_c_130(
    mixcli: Runner, with_demo: Path, texts: Path
) -> None:
    command = f'{sys.executable} -m mixcli batch -q {texts} {" ".join(f"{word!r}" for word in ASK)} | head -1; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[1] == "141"
    process = start("batch", "-", *ASK, stdin=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"France\n")
    process.stdin.flush()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, b"Traceback" in err) == (130, False)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_device_is_exit_4(mixcli: Runner, with_demo: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "mixcli", "batch", "-", *ASK],
            input=b"France\n",
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 4
    assert b"no space left" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.slow
def test_openais_batch_files_pass_through(mixcli: Runner, with_demo: Path, tmp_path: Path) -> None:
    def request(number: int, system: str, **more: Any) -> dict[str, Any]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "Hello there!"}]
        body = {"model": "gpt-none", "messages": messages, "max_tokens": 6, **more}
        return {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }

    requests = [
        request(1, "You are a helpful assistant."),
        request(2, "You are an unhelpful assistant.", temperature=0, stream=True),
        request(3, "x", temperature=99),
        {**request(4, "x"), "url": "/v1/embeddings"},
    ]
    source = tmp_path / "requests.jsonl"
    source.write_text("".join(json.dumps(one) + "\n" for one in requests))
    out = tmp_path / "out.jsonl"
    done = mixcli("batch", str(source), "-o", str(out), "--ctx", "1024")
    assert done.returncode == 3, done.stderr
    first, second, third, fourth = lines_of(out)
    assert [line["custom_id"] for line in lines_of(out)] == [f"request-{n}" for n in range(1, 5)]
    for line in (first, second):
        assert line["error"] is None
        assert line["response"]["status_code"] == 200
        body = line["response"]["body"]
        assert body["object"] == "chat.completion"
        assert body["choices"][0]["message"]["role"] == "assistant"
        assert body["usage"]["completion_tokens"] <= 6
    assert first["id"].startswith("batch_req_")
    assert third["response"]["status_code"] == 400
    assert "temperature" in third["response"]["body"]["error"]["message"]
    assert 'the url "/v1/embeddings" is not supported' in fourth["error"]["message"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nowhere.jsonl"], "no such file: nowhere.jsonl"),
        (["{csv}", "--prompt", "{{{{ body }}}}"], "{{ body }} has no value; fields are id, subject"),
        (["{csv}", "--column", "body"], "no field 'body'"),
        (["{csv}", "--column", "subject", "--keep", "gold"], "--keep: no column 'gold'"),
        (
            ["{csv}", "--column", "subject", "--eval", "gold", "--choice", "a,b"],
            "--eval: no column 'gold'",
        ),
        (["-", "--endpoint", "http://example.invalid"], "HF_HUB_OFFLINE"),
        (["-", "--endpoint", "ftp://example.invalid"], "not a valid server address"),
        (["-", "--endpoint", "https://user:word@example.invalid"], "the address contains a password"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_model_is_loaded(
    mixcli: Runner, with_demo: Path, tmp_path: Path, args: list[str], words: str
) -> None:
    table = tmp_path / "mails.csv"
    table.write_text("id,subject\n1,hello\n")
    done = mixcli("batch", *(arg.format(csv=table) for arg in args), stdin=b"x\n")
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(runtime_dir().glob("*.log"))


def test_an_output_that_is_a_journal_of_nothing_is_left_alone(
    mixcli: Runner, with_demo: Path, texts: Path, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work")
    done = mixcli("batch", str(texts), *ASK, "--journal", str(thesis))
    assert done.returncode == 2
    assert "is not a mixcli batch journal" in done.stderr
    assert thesis.read_text() == "years of work"
