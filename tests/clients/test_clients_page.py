"""Each Python block of docs/clients.md runs as it stands, but for the address and the key of the server."""

import pytest

from tests.clients.conftest import BLOCKS, Driven, needs_python_clients

pytestmark = [pytest.mark.model, pytest.mark.slow, needs_python_clients]


@pytest.mark.parametrize("client", BLOCKS)
def test_the_block_prints_an_answer(driven: Driven, client: str) -> None:
    out, error = driven.ends[client]
    assert not error
    assert out.strip()
