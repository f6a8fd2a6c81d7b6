"""Signals that come while a C library calls Python, typed words without an end, and files without permission."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.errors import IntegrityError, UnreadableFile
from mixcli.store.headers import header_of
from tests.conftest import Runner

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
