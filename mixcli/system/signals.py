"""Handle signals that end a command: clean up, stop children, exit with 128 plus the signal number."""

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

ENDING = (signal.SIGTERM, signal.SIGHUP)
EXIT_SIGNAL = 128
RETRY_AFTER = 0.05  # seconds
LAST_MOMENTS = 20.0  # seconds for cleaning up, after which the process ends without


class Interrupted(KeyboardInterrupt):
    """Ctrl-C. It is a class of its own for the exit code.

    CPython (pythonrun.c, run_eval_code_obj) notes each plain KeyboardInterrupt that leaves source text run by exec(), as dataclasses and
    namedtuple do when a module is imported, and ends `python -m` with the signal in place of its exit code, even where it was caught.
    """


@contextmanager
def resumable() -> Iterator[None]:
    """Have Ctrl-C within the block advise to rerun the command, which then resumes; also as a decorator."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("rerun the command to resume") from None


class Ended(SystemExit):
    """The command received SIGTERM or SIGHUP. It passes through `except Exception` and through event loops, and has its exit code with it."""


def listen() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, SIGTERM and SIGHUP raise Ended; what the parent has ignored (nohup, &) stays ignored.

    One that comes while a C library calls Python, as a compiler does, would be lost there: it is sent again.
    """
    sys.unraisablehook = _unraisable
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupt)
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _end)


def let_go() -> None:
    """Let any further signal end the process at once: it is ending anyway, so no traceback is needed."""
    for number in (signal.SIGINT, *ENDING):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def survive_interrupts() -> None:
    """Let the process continue after Ctrl-C: what the person interrupts is an answer, not the program."""
    if signal.getsignal(signal.SIGINT) is interrupt:
        signal.signal(signal.SIGINT, _cancel)


def interrupt(_number: int, _frame: object) -> NoReturn:
    """Handle a signal as Ctrl-C."""
    _end_at_last(EXIT_SIGNAL + signal.SIGINT)
    raise Interrupted


def _cancel(_number: int, _frame: object) -> NoReturn:
    raise Interrupted


def _end(number: int, _frame: object) -> NoReturn:
    signal.signal(number, _leave)  # a second one does not wait
    _end_at_last(EXIT_SIGNAL + number)
    raise Ended(EXIT_SIGNAL + number)


def _end_at_last(code: int) -> None:
    """End the process after LAST_MOMENTS, if it has not ended by then.

    An exception that a signal raises can come at any instruction, also where a class of the standard library has just taken a lock and not yet recorded that it must release it; a thread that then waits for that lock waits forever. All that a command writes survives a kill.
    """

    def leave() -> None:
        time.sleep(LAST_MOMENTS)
        os.write(2, f"mixcli: cleaning up took longer than {LAST_MOMENTS:g} s and was aborted\n".encode())
        os._exit(code)

    _thread.start_new_thread(leave, ())  # threading.Thread takes such locks itself


def _unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Send a signal again whose exception could not leave the function that it came in; show all else as Python does."""
    error = lost.exc_value
    if isinstance(error, KeyboardInterrupt):
        number = signal.SIGINT
    elif isinstance(error, Ended) and isinstance(error.code, int):
        number = signal.Signals(error.code - EXIT_SIGNAL)
        signal.signal(number, _end)
    else:
        sys.__unraisablehook__(lost)
        return
    from threading import Timer  # rarely needed

    again = Timer(RETRY_AFTER, os.kill, (os.getpid(), number))  # at once it would come in the same function
    again.daemon = True
    again.start()


def _leave(number: int, _frame: object) -> NoReturn:
    os._exit(EXIT_SIGNAL + number)
