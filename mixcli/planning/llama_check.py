"""Run an engine task in a child process, so that a crash becomes a result."""

import json

from mixcli.system import python_child

TIME_LIMIT = 300  # seconds: two self-tests that do not end


def computes() -> tuple[bool, str]:
    """Return whether llama.cpp computes on this machine, with a note when something had to be switched off or why not."""
    code = (
        "import json\n"
        "from mixcli.llama.selftest import NOTE, checked\n"
        "from profiles.placement import Placement\n"
        "placement, _ = checked(Placement())\n"
        "print(json.dumps('' if placement.repack else NOTE))"
    )
    done = python_child.run("-c", code, seconds=TIME_LIMIT)
    if done.succeeded:
        return True, str(json.loads(done.out))
    return False, done.last_words
