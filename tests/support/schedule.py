"""How `make test` shares the files between its workers: the longest begin, and the fuzzers, a minute each, run one after the other."""

import os
from collections.abc import Sequence

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# files and folders in descending order of their seconds; a worker runs all tests of such a folder
LONGEST = (
    "tests/fuzz/",
    "tests/clients/",
)


def rank(nodeid: str) -> int:
    """Return the place of a test's file or folder in LONGEST; other files come after them."""
    return next((n for n, start in enumerate(LONGEST) if nodeid.startswith(start)), len(LONGEST))


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests by file, the longest files first; the tests of a file keep their order."""
    items.sort(key=lambda item: rank(item.nodeid))


class LongestFirst(LoadFileScheduling):
    """A worker that is free gets the next file, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False  # xdist would begin with the file that has the most tests
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        n = rank(nodeid)
        return LONGEST[n] if n < len(LONGEST) else super()._split_scope(nodeid)


def share_of(cores: Sequence[int]) -> list[int]:
    """Return this worker's share of the cores; workers share a core where there are more of them than cores."""
    number = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
    n_shares = min(int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), len(cores))
    return list(cores[number % n_shares :: n_shares])
