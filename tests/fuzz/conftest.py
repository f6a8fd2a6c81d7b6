"""Fuzzers leave the processor to tests that need it, and take it while those wait."""

import contextlib
import os
from collections.abc import Iterator

import pytest

NICE = 5  # a third of the weight of another test


@pytest.fixture(scope="module", autouse=True)
def polite() -> Iterator[None]:
    """Lower the priority of this process where other workers test beside it, until its file of fuzzers is done (for good without the right to raise it)."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        yield
        return
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.nice(NICE)
    yield
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, before)
