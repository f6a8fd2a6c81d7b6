"""A system that mixcli does not support is refused in one sentence, before anything that it lacks is imported."""

import subprocess
import sys

from tests.conftest import ROOT

AS_ON_WINDOWS = """
import sys
sys.platform = "win32"
sys.modules["fcntl"] = sys.modules["resource"] = None
import mixcli.__main__
mixcli.__main__.main()
"""


def test_windows_is_refused_with_the_page_that_helps() -> None:
    words = [sys.executable, "-c", AS_ON_WINDOWS]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "WSL 2" in done.stderr
    assert (ROOT / done.stderr.split()[-1]).is_file()
