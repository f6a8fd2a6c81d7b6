"""Who computes on this machine: seen by the others while it computes, and not after it died."""

import errno
import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.host.cpu_arbiter import CpuArbiter

OTHER = """
import sys
from pathlib import Path
from mixcli.host.cpu_arbiter import CpuArbiter
if sys.argv[2] == "False":
    import errno, fcntl
    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks")
    fcntl.flock = refuse
sharing = CpuArbiter(Path(sys.argv[1]))
print(sharing.busy(), flush=True)
for line in sys.stdin:
    sharing.idle() if line == "idle\\n" else sharing.busy()
    print("done", flush=True)
"""


@pytest.mark.parametrize("has_locks", [True, False])
def test_hosts_see_each_other_while_they_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool
) -> None:
    def refuse(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", refuse)
    mine = CpuArbiter(tmp_path)
    assert mine.busy() == 0
    mine.idle()
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path), str(has_locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None

        def tell(word: str) -> int:
            other.stdin.write(f"{word}\n")  # type: ignore[union-attr]
            other.stdin.flush()  # type: ignore[union-attr]
            assert other.stdout.readline() == "done\n"  # type: ignore[union-attr]
            mine.idle()
            return mine.busy()

        other.stdout.readline()
        assert mine.busy() == 1
        assert tell("idle") == 0
        assert tell("busy") == 1
        other.kill()
    mine.idle()
    assert mine.busy() == 0, "a dead host computes nothing"
    mine.idle()
    assert list(tmp_path.iterdir()) == []
