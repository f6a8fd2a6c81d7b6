"""Things in the folder of sockets that no mixcli has put there: they keep nobody from a model, and nothing waits for them."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.client.spawn import Child
from mixcli.system import paths
from tests.conftest import Runner


@pytest.mark.parametrize(
    "put",
    [os.mkfifo, Path.touch, lambda path: path.symlink_to("/dev/full"), lambda path: path.symlink_to(path.name)],
)  # fmt: skip
def test_a_log_takes_the_place_of_anything(tmp_path: Path, put: Callable[[Path], object]) -> None:
    log, codes = tmp_path / "x.log", list[int | None]()
    put(log)

    def start() -> None:
        codes.append(Child.start("platform", "", log).wait(60))

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    starting.join(60)
    assert codes == [0]
    assert log.is_file()
    assert not log.is_symlink()
    assert log.read_text()


@pytest.mark.parametrize("suffix", ["sock", "lock", "log", "host", "port", "worker"])
def test_what_is_no_socket_is_read_over(home: Path, mixcli: Runner, suffix: str) -> None:
    folder = paths.runtime_dir()
    (folder / f"a.{suffix}").mkdir()
    os.mkfifo(folder / f"b.{suffix}")
    (folder / f"c.{suffix}").symlink_to(f"c.{suffix}")
    (folder / f"d.{suffix}").write_text("x")
    for arguments in (["ps"], ["top", "--json"], ["stop", "--all"]):
        done = mixcli(*arguments)
        assert done.returncode == 0, done.stderr
