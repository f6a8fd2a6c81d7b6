"""Each Python block of docs/clients.md runs as it stands, but for the address and the key of the server."""

import re
import subprocess

import pytest

from tests.clients.conftest import KEY, PYTHON, ServedDemo, needs_python_clients
from tests.conftest import ROOT

pytestmark = [pytest.mark.model, pytest.mark.slow, needs_python_clients]
PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^## (\S+)\n\n```python\n(.*?)^```", PAGE, flags=re.M | re.S))


@pytest.mark.parametrize("client", BLOCKS)
def test_the_block_prints_an_answer(served: ServedDemo, client: str) -> None:
    here = BLOCKS[client].replace("http://127.0.0.1:8080", served.url.removesuffix("/v1"))
    done = subprocess.run(
        [PYTHON, "-c", here.replace('"none"', repr(KEY))],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
