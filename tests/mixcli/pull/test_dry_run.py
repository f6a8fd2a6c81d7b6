"""mixcli plan for a model on the Hub: its header is read by Range, its data stays there."""

import json
import os
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.support import small_gguf
from tests.support.hub_server import StandIn

SMALL, LARGE = small_gguf.gguf(9_000_000, seed=3), small_gguf.gguf(12_000_000, seed=4)


@pytest.mark.slow
def test_a_plan_fetches_less_than_two_megabytes(
    hub: StandIn, online: dict[str, str], mixcli: Runner, home: Path
) -> None:
    hub.add("org/tiny-GGUF", {"tiny.Q4_K_M.gguf": SMALL, "tiny.Q8_0.gguf": LARGE})
    for text, label in (("org/tiny-GGUF:Q8_0", "Q8_0"), ("org/tiny-GGUF:Q4_K_M", "Q4_K_M")):
        before = sum(seen.sent for seen in hub.log)
        done = mixcli("plan", text, "--profile", "cpu", "--json", **{**os.environ, **online})
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["model"] == f"org/tiny-GGUF:{label}"
        assert 0 < sum(seen.sent for seen in hub.log) - before < 2 << 20
    assert not list(home.rglob("*.gguf"))
