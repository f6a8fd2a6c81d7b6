"""A loaded host that the tests of a file share, and a server of a tiny model."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.support.hosts import file_host
from tests.support.served import Served
from tests.support.synthetic import resized, shape_named, write_model

__all__ = ["file_host"]


@pytest.fixture
def served_tiny(request: pytest.FixtureRequest, mixcli: Runner, tmp_path: Path) -> Iterator[Served]:
    """Run `mixcli serve` with a model that answers nonsense in no time, and with the options of an indirect parameter."""
    model = write_model(tmp_path / "tiny.gguf", resized(shape_named("mid", 1), 512, 256))
    server = Served("--port", "0", *getattr(request, "param", ()), n_ctx=512, model=str(model))
    yield server
    if server.process.poll() is None:
        server.process.kill()
        server.process.communicate()
