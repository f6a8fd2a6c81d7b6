"""Real client packages of node drive `mixcli serve`: openai, and Vercel's AI SDK."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import NODE_MODULES, ServedDemo, needs_node_clients

pytestmark = [pytest.mark.model, pytest.mark.slow, needs_node_clients]
SCRIPTS = Path(__file__).with_name("node")


@pytest.mark.parametrize("script", sorted(path.name for path in SCRIPTS.glob("*.mjs")))
def test_the_client_works(served: ServedDemo, script: str) -> None:
    """The script runs beside its packages, which is where node looks for them."""
    copied = shutil.copy(SCRIPTS / script, NODE_MODULES.parent)
    done = subprocess.run(
        ["node", "--test", copied],
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
