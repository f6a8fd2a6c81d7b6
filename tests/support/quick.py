"""What `make test-quick` runs: tests that take less than a second each, on a processor and on the clock."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

EXPRESSION = "not slow"  # the marker expression of `make test-quick`
SECONDS = 1.0  # of a processor; a test that needs more is marked slow
BUSY = (
    2.0  # so much longer the same work takes beside another thread of the core, in memory that others use too
)


def is_quick_run(config: pytest.Config) -> bool:
    return str(config.option.markexpr) == EXPRESSION


@contextmanager
def held_to_a_second(name: str) -> Iterator[None]:
    """Fail a test in which this process, and those that it waited for, used the processor for much longer than a second."""
    before = os.times()
    yield
    after = os.times()
    used = sum(after[:4]) - sum(before[:4])
    if used > SECONDS * BUSY:
        pytest.fail(
            f"{name} took {used:.1f} s of a processor; mark it slow, or make it cheaper", pytrace=False
        )
