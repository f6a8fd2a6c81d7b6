"""How `make test` shares the files between its workers: the longest begin, and the fuzzers run one after the other."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

# files and folders in descending order of their seconds; a worker runs all tests of such a folder
LONGEST = (
    "tests/clients/",
    "tests/mixcli/insight/test_gain.py",
    "tests/mixcli/serve/page/",
    "tests/mixcli/tailor/test_quality.py",
    "tests/fuzz/",
    "tests/mixcli/batch/test_ray.py",
    "tests/mixcli/cluster/",
    "tests/mixcli/tailor/test_tailor.py",
    "tests/mixcli/client/test_worker.py",
    "tests/mixcli/pull/test_network.py",
    "tests/mixcli/batch/test_batch.py",
    "tests/mixcli/run/",
    "tests/quantize/test_writer.py",
    "tests/mixcli/test_recipes.py",
    "tests/mixcli/pull/test_safetensors_pull.py",
    "tests/mixcli/host/test_life.py",
    "tests/mixcli/pull/test_hostile_ways.py",
    "tests/mixcli/chat/",
    "tests/mixcli/engine/test_batching.py",
    "tests/mixcli/batch/test_deterministic.py",
    "tests/quantize/test_conversion.py",
    "tests/mixcli/planning/test_tune_doctor.py",
    "tests/mixcli/serve/test_serve.py",
    "tests/mixcli/engine/test_constraint.py",
    "tests/profiles/test_properties.py",
    "tests/mixcli/serve/test_kills.py",
    "tests/mixcli/host/test_host.py",
    "tests/mixcli/pull/test_pull.py",
    "tests/mixcli/engine/test_deterministic.py",
    "tests/quantize/vocab/test_vocab.py",
    "tests/mixcli/host/api/test_schema_fuzz.py",
    "tests/mixcli/engine/test_faults.py",
    "tests/quantize/vocab/test_tokenization.py",
    "tests/mixcli/commands/test_numbers.py",
    "tests/mixcli/host/test_wire.py",
    "tests/quantize/test_imatrix.py",
    "tests/mixcli/batch/test_endpoint.py",
    "tests/mixcli/engine/test_engine.py",
    "tests/quantize/test_resume.py",
)


def start_elsewhere(config: pytest.Config) -> None:
    """Let each worker collect the files from another place on: in a fresh clone, one compiles what the others then find compiled."""
    number, count = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if number and count and config.args == config.getini("testpaths"):
        files = [
            os.fspath(file) for folder in config.args for file in sorted(Path(folder).rglob("test_*.py"))
        ]
        start = len(files) * int(number.removeprefix("gw")) // int(count)
        config.args = files[start:] + files[:start]


def rank(nodeid: str) -> int:
    """Return the place of a test's file or folder in LONGEST; other files come after them."""
    return next((n for n, start in enumerate(LONGEST) if nodeid.startswith(start)), len(LONGEST))


def longest_first(items: list[pytest.Item]) -> None:
    """Sort the tests by file, the longest files first; the tests of a file keep their order."""
    items.sort(key=lambda item: (rank(item.nodeid), item.path))


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
