"""Ask the engine something in a process of its own, so that its death is an answer too."""

import json
import subprocess
import sys


def computes() -> tuple[bool, str]:
    """Say whether llama.cpp computes on this machine, with a note when something had to be switched off or why not."""
    code = (
        "import json\n"
        "from mixcli.engine.selftest import NOTE, checked\n"
        "from profiles.placement import Placement\n"
        "placement, _ = checked(Placement())\n"
        "print(json.dumps('' if placement.repack else NOTE))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return True, str(json.loads(done.stdout))
    return False, (done.stderr.strip().splitlines() or ["it died without a word"])[-1]
