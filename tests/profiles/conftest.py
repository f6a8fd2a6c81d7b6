"""What the planner's tests share: header-only files of true shapes, and RPC workers on loopback as stand-in GPUs."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from profiles.models import known_models
from tests.support.llama_workers import free_port, start_worker, write_header_only


@pytest.fixture(scope="session")
def header_only(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Give a sparse GGUF of a known model's true shape in a file type."""
    folder = tmp_path_factory.mktemp("header-only")

    @cache
    def path(name: str, file_type: str) -> Path:
        return write_header_only(known_models()[name], file_type, folder / f"{name}-{file_type}.gguf")

    return path


@pytest.fixture(scope="session")
def workers() -> Iterator[list[str]]:
    """Two RPC workers on loopback: another process may take them for GPUs. Gives their endpoints."""
    ports = [free_port(), free_port()]
    processes = [start_worker(port) for port in ports]
    yield [f"127.0.0.1:{port}" for port in ports]
    for process in processes:
        process.kill()
        process.wait()
