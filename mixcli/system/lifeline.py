"""Run a child that ends with its parent: `python -P -m mixcli.system.lifeline FD -m MODULE ...`, or `-c CODE ...`.

FD is the end of a pipe whose other end only the parent has and never writes to; the system closes it when the parent is killed. Reading it
works on every system and from any thread of the parent, as Linux's PR_SET_PDEATHSIG does not.
"""

import os
import sys
import threading


def _leave_with(number: int) -> None:
    os.read(number, 1)
    os._exit(1)


def main() -> None:
    """Run what the arguments name as `python` would, beside a thread that waits for the parent's end."""
    number, kind, what, *rest = sys.argv[1:]
    os.set_inheritable(int(number), False)
    threading.Thread(target=_leave_with, args=(int(number),), name="lifeline", daemon=True).start()
    if kind == "-m":
        import runpy

        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()
