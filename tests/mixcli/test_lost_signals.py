"""Signals that come while a C library calls Python, typed words without an end, and files without permission."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.batch.window import Pool
from mixcli.errors import IntegrityError, UnreadableFile
from mixcli.host.protocol.host_record import HostRecord
from mixcli.pull.download import Behind
from mixcli.store.headers import header_of
from mixcli.system import paths
from mixcli.system.process_state import born
from tests.conftest import Runner, _environment
from tests.support.interrupts import at_each_instruction

IN_A_CALLBACK = """
import ctypes, os, signal, sys, time
from mixcli.system import signals
signals.listen()
@ctypes.CFUNCTYPE(None)
def called():
    os.kill(os.getpid(), {number})
    time.sleep(0.01)
try:
    called()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
print("nothing came")
"""


@pytest.mark.parametrize(("number", "code"), [(2, 130), (15, 143), (1, 129)])
def test_a_signal_in_a_callback_is_not_lost(number: int, code: int) -> None:
    """ctypes cannot pass an exception on: the command went on to its end, with a traceback in between."""
    done = subprocess.run(
        [sys.executable, "-c", IN_A_CALLBACK.format(number=number)],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_a_download_ends_wherever_it_is_interrupted() -> None:
    """A queue of Python's own kept its lock at some instructions, and the end of the download waited for it."""
    behinds = []

    def begin() -> Callable[[], object]:
        behind = Behind(hashlib.sha256()).__enter__()
        behinds.append(behind)
        return lambda: behind.update(memoryview(b"some bytes"))

    assert at_each_instruction(begin, lambda _: behinds[-1].__exit__()) > 0


def test_a_batch_ends_wherever_it_is_interrupted() -> None:
    pools: list[Pool[int, int]] = []

    def begin() -> Callable[[], object]:
        pool = Pool[int, int](lambda task: task, window=2, ahead=3)
        results = pool.results(iter(range(1000)))
        next(results)
        pools.append(pool)
        return pool.release

    def end(_act: object) -> None:
        pools[-1].release()

    assert at_each_instruction(begin, end) > 0


DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("told to end", flush=True))
print("ready", flush=True)
while True:
    time.sleep(600)
"""


def test_ctrl_c_ends_stop_while_it_waits_for_a_model(home: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as deaf:
        try:
            assert deaf.stdout
            assert deaf.stdout.readline() == b"ready\n"
            record = HostRecord(deaf.pid, born(deaf.pid), str(paths.runtime_dir() / "deaf.sock"), "deaf:Q8_0", "/deaf")  # fmt: skip
            record.write()
            with subprocess.Popen(
                [sys.executable, "-m", "mixcli", "stop", "deaf"],
                stderr=subprocess.PIPE,
                env=_environment(home),
            ) as stop:
                assert deaf.stdout.readline() == b"told to end\n"
                stop.send_signal(signal.SIGINT)
                _, err = stop.communicate(timeout=60)
            assert (stop.returncode, err) == (130, b"interrupted\n")
        finally:
            deaf.kill()


LOCKED = """
import signal, sys, threading, time
from mixcli.system import signals
signals.LAST_MOMENTS = 0.5
signals.listen()
lock = threading.Lock()
lock.acquire()
try:
    print("ready", flush=True)
    time.sleep(60)
finally:
    lock.acquire()
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_clean_up_that_waits_forever_is_given_up(number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOCKED], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (
        code,
        b"mixcli: cleaning up took longer than 0.5 s and was aborted\n",
    )


@pytest.mark.parametrize(
    "args", [["help", "x" * 100_000], ["run", "-m", "demo", "--choice", "x" * 100_000, "hi"]]
)
def test_a_word_without_an_end_is_cut_in_a_message(mixcli: Runner, args: list[str]) -> None:
    done = mixcli(*args)
    assert done.returncode == 2
    assert len(done.stderr) < 5000


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_not_called_damaged(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    with pytest.raises(UnreadableFile, match="Permission denied"):
        header_of([path])


def test_a_damaged_file_is(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(IntegrityError) as caught:
        header_of([path])
    assert caught.value.exit_code == 5
