"""Fuzzing for a while: hypothesis draws cases until the time is over, and each case has bounded time and memory.

MIXCLI_FUZZ_SECONDS sets how long each fuzzer runs in seconds (25), MIXCLI_FUZZ_SEED where it begins (0), so that a run can be repeated and a
longer one by hand begins elsewhere. Each runs ROUND cases, however slow the machine is. A case that fails is shrunk and shown by hypothesis.
"""

import contextlib
import io
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

from mixcli.cli import _exit_code_of, cli

SECONDS = float(os.environ.get("MIXCLI_FUZZ_SECONDS", "25"))
SEED = int(os.environ.get("MIXCLI_FUZZ_SEED", "0"))
ROUND = 100  # cases between two looks at the clock, and at least
CASE_SECONDS = 10.0  # of processor time for one case; the slowest honest one takes a tenth of that
CASE_WALL_SECONDS = 120.0
CASE_BYTES = 1 << 30  # of address space for one case, beyond what the process had

# what no sentence for a person contains
RIDDLES = re.compile(r"\bNone\b|Traceback|PosixPath|<class |object at 0x|\bdict_keys\b")


class TooSlow(AssertionError):
    """A case took more time than any input may."""


def for_a_while(cases: SearchStrategy[Any], check: Callable[[Any], None], share: float = 1.0) -> int:
    """Run `check` on drawn cases until a share of the time is over; return how many there were."""
    deadline = time.monotonic() + SECONDS * share
    n_cases = 0
    n_rounds = 0
    while n_cases < ROUND or time.monotonic() < deadline:

        @seed(SEED * 1_000_003 + n_rounds)
        @settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(cases)
        def one_round(case: Any) -> None:
            nonlocal n_cases
            if n_cases < ROUND or time.monotonic() < deadline:
                n_cases += 1
                with bounded():
                    check(case)

        one_round()
        n_rounds += 1
    print(f"{n_cases:,} cases in {n_rounds} rounds", file=sys.__stderr__)
    return n_cases


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Raise TooSlow or MemoryError in a block that takes more than a case may; only in the main thread."""

    def too_slow(number: int, _frame: object) -> None:
        raise TooSlow(
            f"a case took more than {CASE_SECONDS if number == signal.SIGPROF else CASE_WALL_SECONDS:.0f} s"
        )

    old = {number: signal.signal(number, too_slow) for number in (signal.SIGPROF, signal.SIGALRM)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + CASE_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, CASE_SECONDS)
    signal.setitimer(signal.ITIMER_REAL, CASE_WALL_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in old.items():
            signal.signal(number, handler)


@dataclass(frozen=True)
class Answer:
    """How a command ended in this process."""

    code: int
    stdout: str
    stderr: str


def mixcli_here(*args: str) -> Answer:
    """Run a command line in this process, as `mixcli.cli.main` does; a bug is raised with its traceback."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with cli.make_context("mixcli", list(args)) as context:
                cli.invoke(context)
        except (TooSlow, MemoryError):
            raise
        except BaseException as error:
            code = _exit_code_of(error)
    return Answer(code, out.getvalue(), err.getvalue())


def check_refusal(answer: Answer, codes: tuple[int, ...]) -> None:
    """Hold a command's end to what is promised: a code of the table, and a sentence without riddles where it is not 0."""
    assert answer.code in (0, *codes), answer
    if answer.code:
        sentence = answer.stderr.strip()
        assert sentence.startswith("mixcli: "), answer
        assert not RIDDLES.search(sentence), answer
        assert len(sentence) < 2000, answer


def _address_space() -> int:
    """Return the bytes of address space that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - read for every case
        return int(file.read().split()[0]) * resource.getpagesize()


__all__ = ["Answer", "TooSlow", "bounded", "check_refusal", "for_a_while", "mixcli_here"]
