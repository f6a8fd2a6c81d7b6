"""bench.batch: the host that a first command leaves behind belongs to the benchmark, not to the other programs."""

import os
import sys
from pathlib import Path

import pytest

from bench.batch import Command
from bench.engine.subject import Setting, Subject
from bench.peers import Peers
from tests.support.synthetic import resized, shape_named, write_model


def _children(pid: int, word: bytes) -> list[Path]:
    """Return the processes whose parent is `pid` and whose command line has a word in it, zombies not."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_bytes().rpartition(b")")[2].split()[1])
            if parent == pid and word in (place / "cmdline").read_bytes():
                found.append(place)
        except OSError:
            continue
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_host_of_the_warm_up_is_a_child_of_the_benchmark(tmp_path: Path) -> None:
    model = write_model(tmp_path / "tiny.gguf", resized(shape_named("mixtral-8x7b", 2), 512, 512))
    setting = Setting(Subject("tiny", model, is_small=True), Peers(tmp_path), tmp_path)
    with Command(setting) as command:
        command.run("run", "Is water wet?", "--choice", "yes,no")
        assert len(_children(os.getpid(), b"mixcli.host")) == 1
    assert not _children(os.getpid(), b"mixcli.host")
