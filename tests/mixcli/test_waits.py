"""A wait that nothing shows is told after some seconds, and Ctrl-C ends it with 130: FIFOs without another end, a stdin that stays open, slow checks."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from mixcli.planning import doctor
from mixcli.system import console as module
from mixcli.system.console import console
from tests.conftest import _environment

# the real command line, with notes after a tenth of a second
SOON = "import sys; from mixcli.system import console; console.SLOW = 0.1; from mixcli.__main__ import main; sys.argv[0] = 'mixcli'; main()"
SERVER = ["--endpoint", "http://127.0.0.1:9", "-m", "x"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "-f", "{fifo}", "hi"], "waiting for a program that writes to the pipe {fifo}"),
        (["run", "-f", "{fifo}", "--each-line"], "waiting for a program that writes to the pipe {fifo}"),
        (["batch", "{fifo}"], "waiting for a program that writes to the pipe {fifo}"),
        (["batch", "{file}", "-o", "{fifo}"], "waiting for a program that reads from the pipe {fifo}"),
        (["batch", "-"], "waiting for the first records of the input"),
        (["run", "hi"], "reading stdin until it ends; add < /dev/null if there is no input"),
    ],
)
def test_a_wait_for_another_program_is_told_and_can_be_ended(
    home: Path, tmp_path: Path, args: list[str], words: str
) -> None:
    places = {"fifo": str(tmp_path / "fifo"), "file": str(tmp_path / "in.txt")}
    os.mkfifo(places["fifo"])
    (tmp_path / "in.txt").write_text("one\n")
    is_open = args in (["batch", "-"], ["run", "hi"])
    process = subprocess.Popen(
        [sys.executable, "-c", SOON, *(arg.format(**places) for arg in args), *SERVER],
        stdin=subprocess.PIPE if is_open else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(home),
    )
    assert process.stderr
    told = words.format(**places)
    lines = []
    while line := process.stderr.readline():
        lines.append(line)
        if told in line:
            break
    assert told in "".join(lines), lines
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


def test_a_fifo_with_a_writer_is_read_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mixcli.system.stdin import file_texts

    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["sh", "-c", 'echo "words" > "$0"', str(fifo)]):
        assert file_texts([fifo]) == ["words"]
    assert capsys.readouterr().err == ""


def test_a_slow_check_of_the_doctor_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def slow() -> doctor.Finding:
        deadline = time.monotonic() + 60
        while "looking" not in "".join(done) and time.monotonic() < deadline:
            time.sleep(0.01)
            done.append(capsys.readouterr().err)
        return doctor.Finding("slow", "ok", "".join(done))

    def quick() -> doctor.Finding:
        return doctor.Finding("quick", "ok", "")

    monkeypatch.setattr(doctor, "PATIENCE", 0.05)
    monkeypatch.setattr(doctor, "CHECKS", (slow,))
    (found,) = doctor.findings()
    assert found.words == "looking...\n"
    monkeypatch.setattr(doctor, "PATIENCE", 60.0)
    monkeypatch.setattr(doctor, "CHECKS", (quick,))
    assert [one.what for one in doctor.findings()] == ["quick"]
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    assert set(doctor.SLOW_CHECKS) <= set(doctor.CHECKS)


@pytest.mark.parametrize(
    ("unit", "at", "line"),
    [
        ("bytes", (5e9, 28.4e9), "pulling x: 5.00 of 28.40 GB\n"),
        (None, (1, 3), "pulling x: 33 %\n"),
        (None, (1, 0), "pulling x\n"),
        (None, (0, 0, "12 records"), "12 records\n"),
    ],
)
def test_progress_in_a_log_is_a_line_now_and_then(
    unit: Literal["bytes"] | None,
    at: tuple[float, float],
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.progress("pulling x", unit) as bar:
        bar.update(*at)
    assert capsys.readouterr().err == ""  # what is quick says nothing
    monkeypatch.setattr(module, "SLOW", 0.0)
    with console.progress("pulling x", unit) as bar:
        bar.update(*at)
        bar.update(*at)  # the next line comes half a minute later
    assert capsys.readouterr().err == line


def test_a_wait_that_ends_soon_says_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with console.if_slow("waiting", 30.0):
        pass
    assert capsys.readouterr().err == ""
    heard: list[str] = []
    say: Callable[[str], None] = heard.append
    monkeypatch.setattr(console, "note", say)
    with console.if_slow("waiting", 0.01):
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
    assert heard == ["waiting"]


def test_a_still_bar_is_drawn_at_updates_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is drawn ten times a second takes a core from what is measured."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)

    def drawn() -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(ours, 1 << 16)
        return b""

    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        with console.progress("measuring", is_still=True) as bar:
            bar.update(1, 4, "first")
            assert b"first" in drawn()
            time.sleep(0.5)
            assert drawn() == b""
            bar.update(2, 4, "second")
            assert b"second" in drawn()
    os.close(ours)
