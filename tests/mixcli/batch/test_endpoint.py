"""mixcli batch against a server that answers at once: order, kills, patience and memory with thousands of records, without a model."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner
from tests.support.waiting import ends_within

SERVER = Path(__file__).with_name("quick_server.py")
Serve = Callable[..., str]


@pytest.fixture
def serve(home: Path) -> Iterator[Serve]:
    """Start the server; gives its address."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> str:
        process = subprocess.Popen([sys.executable, str(SERVER), *args], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{process.stdout.readline().strip()}"

    yield start
    for process in started:
        process.kill()
        process.communicate()


def texts(path: Path, n: int) -> Path:
    chance = random.Random(n)
    path.write_text("".join(f"text {number} is {chance.choice(['spam', 'ham'])}\n" for number in range(n)))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def command(source: Path, out: Path, url: str, *more: str) -> list[str]:
    return ["batch", str(source), "-o", str(out), "--choice", "ham,spam", "--endpoint", url, *more]


def test_every_answer_stands_at_its_record_in_the_order_of_the_input(
    mixcli: Runner, serve: Serve, tmp_path: Path
) -> None:
    source, out = texts(tmp_path / "texts.txt", 1500), tmp_path / "out.jsonl"
    done = mixcli(*command(source, out, serve("0")))
    assert done.returncode == 0, done.stderr
    assert [line["id"] for line in lines(out)] == list(range(1, 1501))
    asked = [line.split()[-1] for line in source.read_text().splitlines()]
    assert [line["result"] for line in lines(out)] == asked


def test_unordered_has_the_same_lines(mixcli: Runner, serve: Serve, tmp_path: Path) -> None:
    source, out = texts(tmp_path / "texts.txt", 300), tmp_path / "out.jsonl"
    assert mixcli(*command(source, out, serve("0.005"), "--unordered")).returncode == 0
    assert sorted(line["id"] for line in lines(out)) == list(range(1, 301))


def test_the_requests_are_in_flight_together(mixcli: Runner, serve: Serve, tmp_path: Path) -> None:
    """256 answers of 1 s each would take 256 s one after the other."""
    source, out = texts(tmp_path / "texts.txt", 256), tmp_path / "out.jsonl"
    with ends_within(100):
        assert mixcli(*command(source, out, serve("1"), "--window", "64")).returncode == 0


@pytest.mark.slow
def test_a_busy_server_is_asked_again(mixcli: Runner, serve: Serve, tmp_path: Path) -> None:
    source, out = texts(tmp_path / "texts.txt", 200), tmp_path / "out.jsonl"
    done = mixcli(*command(source, out, serve("0", "busy"), "-m", "quick"))
    assert done.returncode == 0, done.stderr
    assert len(lines(out)) == 200


def test_a_refused_record_is_an_error_line_and_is_tried_again_by_the_next_run(
    mixcli: Runner, serve: Serve, tmp_path: Path
) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    source.write_text("one ham\npoison\nthree spam\n")
    for known in (0, 2):
        done = mixcli(*command(source, out, url_of(serve, tmp_path)))
        assert done.returncode == 3
        assert (f"{known} from an earlier run" in done.stderr) == bool(known)
        assert [line.get("result") for line in lines(out)] == ["ham", None, "spam"]
        assert lines(out)[1]["error"] == {"message": "no poison, please", "exit_code": 2}


def url_of(serve: Serve, folder: Path) -> str:
    """The same address for two runs: it is part of the journal's keys."""
    file = folder / "url"
    if not file.exists():
        file.write_text(serve("0"))
    return file.read_text()


@pytest.mark.slow
def test_killed_at_ten_moments_it_gives_the_same_file_as_without(
    mixcli: Runner, serve: Serve, tmp_path: Path
) -> None:
    source, whole, out = texts(tmp_path / "texts.txt", 4000), tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    url = serve("0")
    assert mixcli(*command(source, whole, url)).returncode == 0
    journal = out.with_name("out.jsonl.journal")
    chance = random.Random(10)
    for moment in range(10):
        process = subprocess.Popen([sys.executable, "-m", "mixcli", *command(source, out, url, "-q")])
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.stat().st_size < moment * 30_000 + chance.random() * 20_000:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not out.exists()
    done = mixcli(*command(source, out, url))
    assert done.returncode == 0, done.stderr
    assert "from an earlier run" in done.stderr
    assert out.read_bytes() == whole.read_bytes()
    places = sorted(json.loads(line)["n"] for line in journal.read_text().splitlines()[1:])
    assert places == list(range(4000)), "every record was computed, and kept, once"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_an_input_without_end_is_answered_at_once_and_costs_no_memory(serve: Serve, tmp_path: Path) -> None:
    """200,000 lines are offered through a pipe; 3,000 answers are looked at."""
    arguments = ["batch", "-", "--choice", "ham,spam", "--endpoint", serve("0"), "-q"]
    feeder = "for n in range(200_000): print('text', n, 'is ham' if n % 2 else 'is spam', 'x' * 300)"
    feeding = subprocess.Popen(
        [sys.executable, "-c", feeder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", *arguments], stdin=feeding.stdout, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert feeding.stdout is not None
    feeding.stdout.close()
    for number in range(1, 3001):
        assert json.loads(process.stdout.readline())["id"] == number
        if number == 1:
            assert feeding.poll() is None, "the first answer waits for no end of the input"
    peak = next(
        line
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    process.kill()
    feeding.kill()
    process.communicate()
    feeding.wait()
    assert int(peak.split()[1]) < 150_000, peak


def test_the_key_goes_to_the_server_and_nowhere_else(mixcli: Runner, tmp_path: Path) -> None:
    import http.server
    import threading

    seen: list[str | None] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "bad key"}}')

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        said = ("run", "hi", "-m", "m", "--endpoint", url, "--api-key-env", "MY_KEY")
        done = mixcli(*said, MY_KEY="sk-secret")
        missing = mixcli(*said, MY_KEY="")
        server.shutdown()
    assert seen == ["Bearer sk-secret"]
    assert (done.returncode, missing.returncode) == (6, 2)
    assert "bad key" in done.stderr
    assert "sk-secret" not in done.stderr + done.stdout
    assert "MY_KEY is empty or not set" in missing.stderr


def test_a_server_that_is_not_there_is_exit_6(mixcli: Runner, home: Path) -> None:
    done = mixcli("batch", "-", "-m", "m", "--endpoint", "http://127.0.0.1:9", stdin=b"x\n")
    assert done.returncode == 6
    assert "cannot connect to 127.0.0.1:9: Connection refused; start the server" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_fails_for_every_record_is_asked_for_the_first_of_them_only(
    mixcli: Runner, serve: Serve, tmp_path: Path
) -> None:
    source, out, url = tmp_path / "texts.txt", tmp_path / "out.jsonl", serve("0")
    source.write_text("poison\n" * 100)
    done = mixcli(*command(source, out, url))
    assert done.returncode == 3
    assert (
        "the first 32 records all failed with the same error, so the batch stopped: no poison, please"
        in done.stderr
    )
    done = mixcli(*command(source, out, url, "--max-errors", "100"))
    assert (done.returncode, len(lines(out))) == (3, 100)
    source.write_text("one ham\n" + "poison\n" * 99)
    assert mixcli(*command(source, out, url)).returncode == 3
    assert len(lines(out)) == 100, "one of them worked"


@pytest.mark.parametrize("command", [("batch", "-"), ("batch", "/dev/stdin"), ("run", "--each-line", "x")])
def test_ctrl_c_while_it_waits_for_input_is_exit_130(serve: Serve, command: tuple[str, ...]) -> None:
    arguments = [*command, "--choice", "ham,spam", "--endpoint", serve("0"), "-q"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mixcli", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one ham\n")
    process.stdin.flush()
    assert b"ham" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, "the pipe is still open"
    _, err = process.communicate()
    assert err.replace(b"interrupted\n", b"") == b""
