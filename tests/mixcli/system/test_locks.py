"""A lock is waited for with words and with an end; the holders are real processes."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mixcli.errors import MixcliError
from mixcli.store import waiting
from mixcli.system import locks
from mixcli.system.locks import exclusive
from mixcli.system.process_state import STOPPED, lock_holder, state
from tests.support.waiting import LIMIT

HOLD = """
import sys, time
from pathlib import Path
from mixcli.system.locks import exclusive
with exclusive(Path(sys.argv[1])):
    print(1, flush=True)
    while sys.argv[2] == "busy":
        pass
    time.sleep(600)
"""
FOREIGN = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print(1, flush=True)
time.sleep(600)
"""
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.lock"


@pytest.fixture
def hold(path: Path) -> Iterator[Start]:
    """Start a process that has the lock."""
    started = []

    def start(code: str = HOLD, how: str = "") -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([sys.executable, "-c", code, os.fspath(path), how], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "POLL_INTERVAL", 0.05)
    monkeypatch.setattr(locks, "POLL", 0.02)


def freeze(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGSTOP)
    while state(process.pid) != STOPPED:
        pass


def test_a_lock_that_is_held_for_ever_names_its_holder(path: Path, hold: Start) -> None:
    holder = hold()
    with (
        pytest.raises(MixcliError, match=rf"process {holder.pid} has been eating since \d\d:\d\d and"),
        locks.exclusive(path, seconds=0.2, what="eating"),
    ):
        pass
    holder.kill()
    with locks.exclusive(path, seconds=60):
        pass


def test_a_holder_that_is_stopped_is_told_and_waited_for_with_an_end(
    path: Path, hold: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FROZEN", 0.3)
    holder, said = hold(), []
    freeze(holder)
    with (
        pytest.raises(MixcliError, match=rf"has been stopped for .*kill -CONT {holder.pid}"),
        locks.exclusive(path, said.append, what="pulling x"),
    ):
        pass
    assert said[-1].startswith(f"process {holder.pid} has been pulling x since ")
    assert f"kill -CONT {holder.pid}" in said[-1]


def test_a_holder_that_continues_is_waited_for(
    path: Path, hold: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "FROZEN", 60.0)
    holder = hold()
    freeze(holder)

    def look(words: str) -> None:
        if "is stopped" in words:
            holder.send_signal(signal.SIGCONT)
        else:
            holder.kill()

    with locks.exclusive(path, look):
        assert holder.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(("how", "limit"), [("", "LONGEST"), ("busy", "BUSY")])
def test_a_holder_without_progress_is_waited_for_with_an_end(
    path: Path, hold: Start, monkeypatch: pytest.MonkeyPatch, how: str, limit: str
) -> None:
    monkeypatch.setattr(locks, "LONGEST", 0.3)
    monkeypatch.setattr(locks, "BUSY", 30.0 if limit == "LONGEST" else 0.3)
    holder, seen = hold(HOLD, how), iter([1, 2, 3, *[4] * 10_000])
    with (
        pytest.raises(MixcliError, match=f"no progress for 0 s; end it with `kill {holder.pid}`"),
        locks.exclusive(path, lambda _words: next(seen)),
    ):
        pass
    assert next(seen) == 4


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux lists its locks")
def test_a_program_that_does_not_sign_is_known_all_the_same(path: Path, hold: Start) -> None:
    holder = hold(FOREIGN)
    handle = os.open(path, os.O_RDWR)
    try:
        if not lock_holder(handle):
            pytest.skip("this file system's device has two names")
        with pytest.raises(MixcliError, match=f"^process {holder.pid} is "), locks.exclusive(path, seconds=0):
            pass
    finally:
        os.close(handle)


def test_what_a_dead_process_wrote_is_nobody(path: Path, hold: Start) -> None:
    holder = hold()
    holder.kill()
    holder.wait()
    begin = path.read_bytes()
    other = hold(FOREIGN)
    path.write_bytes(begin)
    with pytest.raises(MixcliError) as caught, locks.exclusive(path, seconds=0):
        pass
    assert str(caught.value).startswith((f"process {other.pid} is ", "another process is "))


def test_who_is_waited_for_is_told_once_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "NOTE", 0.0)
    shown: list[tuple[float, float, str]] = []
    wait = waiting.Waiting(lambda: (1, 2), lambda *at: shown.append(at))
    assert [wait("process 1 is x"), wait("process 1 is x")] == [1, 1]
    assert capsys.readouterr().err == "waiting: process 1 is x\n"
    assert shown == [(1, 2, "process 1 is x")] * 2


def test_a_folder_that_is_removed_meanwhile_is_what_is_reported(tmp_path: Path) -> None:
    """The descriptor of the old file is closed once: a second time it may be another thread's."""
    folder = tmp_path / "folder"
    folder.mkdir()
    waits, errors = threading.Event(), list[OSError]()

    def take() -> None:
        try:
            with exclusive(folder / "a.lock", lambda _: waits.set()):
                pass
        except OSError as error:
            errors.append(error)

    with (folder / "a.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(target=take)
        thread.start()
        assert waits.wait(LIMIT)
        shutil.rmtree(folder)
    thread.join(LIMIT)
    assert [type(error) for error in errors] == [FileNotFoundError]
