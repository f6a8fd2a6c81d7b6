"""Interrupts at each instruction of a piece of code at which signals are handled, one run after the other.

CPython looks for signals behind calls, at the beginning of functions, and where a loop goes back.
"""

import _weakrefset
import dis
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from mixcli.system.signals import Interrupted

SECONDS = 20.0  # in which a run must end that takes no time
MAX_INSTRUCTIONS = 5000


def at_each_instruction(begin: Callable[[], Callable[[], object]], end: Callable[[Any], object]) -> int:
    """Call `end` with what `begin` returned after that was called and interrupted at its first such instruction, then at its second, and so on.

    Returns their number. AssertionError where a run does not end; it then keeps a daemon thread.
    """
    for n in range(MAX_INSTRUCTIONS):
        was_interrupted: list[bool] = []
        run = threading.Thread(target=_run, args=(n, begin, end, was_interrupted), daemon=True)
        run.start()
        run.join(SECONDS)
        assert not run.is_alive(), f"interrupted at its instruction {n}, it never ends"
        if was_interrupted != [True]:
            assert was_interrupted == [False], f"interrupted at its instruction {n}, it failed"
            return n
    raise AssertionError(f"more than {MAX_INSTRUCTIONS} instructions")


def _run(
    n: int,
    begin: Callable[[], Callable[[], object]],
    end: Callable[[Any], object],
    was_interrupted: list[bool],
) -> None:
    act = begin()
    left = n
    last: dict[FrameType, str] = {}  # the instruction before, of each call that runs

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename == _weakrefset.__file__:  # what its callbacks raise is lost
            return None
        frame.f_trace_opcodes = True
        if event == "return":
            last.pop(frame, None)
        if event == "opcode":
            name = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if name in ("RESUME", "JUMP_BACKWARD") or last.get(frame, "").startswith("CALL"):
                if left == 0:
                    sys.settrace(None)
                    raise Interrupted
                left -= 1
            last[frame] = name
        return trace

    interrupted = False
    sys.settrace(trace)
    try:
        act()
    except Interrupted:
        interrupted = True
    finally:
        sys.settrace(None)
    end(act)
    was_interrupted.append(interrupted)
