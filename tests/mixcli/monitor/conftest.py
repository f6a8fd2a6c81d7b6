"""A host with the demo model that the tests of a file share, and a server of a tiny model that asks for a key."""

import pytest

from tests.mixcli.serve.conftest import served_tiny
from tests.support.hosts import file_host

__all__ = ["file_host", "served_tiny"]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a server that is started ask for a key that nobody else has."""
    monkeypatch.setenv("MIXCLI_API_KEY", "correct-horse-battery-staple")
