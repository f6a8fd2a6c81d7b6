"""Who computes on this machine: seen by the others while it computes, and not after it died."""

import subprocess
import sys
from pathlib import Path

from mixcli.host.sharing import Sharing

OTHER = """
import sys
from pathlib import Path
from mixcli.host.sharing import Sharing
sharing = Sharing(Path(sys.argv[1]))
print(sharing.busy(), flush=True)
for line in sys.stdin:
    sharing.idle() if line == "idle\\n" else sharing.busy()
    print("done", flush=True)
"""


def test_hosts_see_each_other_while_they_compute(tmp_path: Path) -> None:
    mine = Sharing(tmp_path)
    assert mine.busy() == 0
    mine.idle()
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    assert mine.busy() == 0, "the kernel lets go of a dead host's lock"
    mine.idle()
    assert list(tmp_path.iterdir()) == []
