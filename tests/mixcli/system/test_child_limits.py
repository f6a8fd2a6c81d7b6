"""Limits that a child sets for itself: never above those that it has, and never an error."""

import subprocess
import sys

CODE = """
import resource, sys
from mixcli.system import child_limits
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
child_limits.limit(resource.RLIMIT_FSIZE, 1 << 30)
child_limits.limit(resource.RLIMIT_NOFILE, 50)
child_limits.no_core_dump()
print(*(resource.getrlimit(one) for one in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)))
"""


def test_the_lower_limit_holds() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1048576, 1048576) (50, 50) (0, 0)"
