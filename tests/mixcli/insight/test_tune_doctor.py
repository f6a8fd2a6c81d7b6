"""tune measures and is believed afterwards; the doctor says what is there and what is missing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixcli.hub.store import find
from mixcli.launch import Wish
from mixcli.placing import place
from profiles.request import Request

Runner = Callable[..., Any]
STATES = {"ok", "warn", "fail"}


@pytest.mark.model
@pytest.mark.slow
def test_what_tune_found_is_used_and_shown(mixcli: Runner, with_demo: Path) -> None:
    nothing = mixcli("tune", "-m", "demo", "--ctx", "512", "--show")
    assert nothing.returncode == 2
    assert "nothing was measured" in nothing.stderr
    done = mixcli("tune", "-m", "demo", "--ctx", "512", "--seconds", "4", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert "the plan" in {row["what"] for row in rows}
    assert all(row["decode"] > 0 and row["prefill"] > 0 for row in rows)
    shown = json.loads(mixcli("tune", "-m", "demo", "--ctx", "512", "--show", "--json").stdout)
    assert shown == rows
    kept = json.loads(
        next(iter(json.loads((with_demo / "cache/tuned.json").read_text()).values()))["placement"]
    )
    order = place(find("demo"), Wish(Request(n_ctx=512)))
    assert json.loads(order.placement.to_json()) == kept
    assert set(order.expected) == {"host"}
    assert (
        mixcli("tune", "-m", "demo", "--ctx", "512", "--seconds", "0", "--target-tps", "1e6").returncode == 4
    )


def test_tune_needs_a_model_that_is_here(mixcli: Runner) -> None:
    done = mixcli("tune", "-m", "mixtral")
    assert done.returncode == 2
    assert "pull" in done.stderr


def test_the_doctor_goes_through_everything(mixcli: Runner) -> None:
    done = mixcli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert {
        "python",
        "bindings",
        "backends",
        "self-test",
        "gpus",
        "memory",
        "bandwidth",
        "disk",
        "store",
        "network",
    } == set(found)
    assert {one["state"] for one in found.values()} <= STATES
    assert found["store"]["state"] == "warn"
    assert "mixcli pull demo" in found["store"]["words"]


def test_the_doctor_sees_a_crashing_build(mixcli: Runner) -> None:
    done = mixcli("doctor", "--json", MIXCLI_SELFTEST_CRASH="1")
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["self-test"]["state"] == "warn"
    assert "make setup" in found["self-test"]["words"]
