"""Waits for what other threads and processes do, with an end that no busy machine reaches."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

LIMIT = 60.0  # seconds for what takes a fraction of one on an idle machine


def wait_for(condition: Callable[[], Any], seconds: float = LIMIT) -> Any:
    """Wait until a condition is true and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"it did not happen in {seconds:.0f} s"
        time.sleep(0.005)
    return value


@contextmanager
def ends_within(seconds: float = LIMIT) -> Iterator[None]:
    """Fail if a block takes longer: for what would take minutes, or wait without an end, if it were wrong."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took < seconds, f"it took {took:.0f} s"
