"""What is said of other processes."""

import signal

from mixcli.system import python_child
from mixcli.system.process_state import killed_by


def test_a_file_that_became_shorter_is_named_as_the_cause() -> None:
    code = (
        "import mmap, tempfile\n"
        "file = tempfile.TemporaryFile()\n"
        "file.truncate(1 << 16)\n"
        "seen = mmap.mmap(file.fileno(), 1 << 16)\n"
        "file.truncate(0)\n"
        "seen[0]"
    )
    done = python_child.run("-c", code, seconds=60)
    assert done.code == -signal.SIGBUS
    assert done.last_words == killed_by(signal.SIGBUS)
    assert "became shorter" in done.last_words
    assert killed_by(9).startswith("killed by signal 9, ")
