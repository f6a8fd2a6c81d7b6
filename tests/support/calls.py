"""Count how often functions are called: this holds the time of a computation on any machine, without a clock."""

from collections.abc import Callable
from cProfile import Profile
from types import FunctionType


def calls_of(work: Callable[[], object], *functions: Callable[..., object]) -> dict[str, int]:
    """Return the calls of Python functions while `work` runs, by their names."""
    profile = Profile()
    profile.runcall(work)
    counts = {entry.code: entry.callcount for entry in profile.getstats()}
    found = {}
    for function in functions:
        assert isinstance(function, FunctionType)
        found[function.__name__] = counts.get(function.__code__, 0)
    return found
