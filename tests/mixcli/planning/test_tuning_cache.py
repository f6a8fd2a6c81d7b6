"""What was tuned counts only where it fits as a whole, and on the computer where it was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.planning import tuning_cache
from mixcli.store.headers import header_of, shape_of
from mixcli.system import hardware
from profiles.machine import Machine
from profiles.planner import Plan, plan
from profiles.profile_files import load_profile
from profiles.request import PlanRequest
from profiles.shape import ModelShape
from tests.support import small_gguf

REQUEST = PlanRequest(n_ctx=512)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_gguf.write(tmp_path / "model.gguf", small_gguf.gguf())


def _planned(model: Path) -> tuple[ModelShape, Machine, Plan]:
    """Return a plan for the GPU of an Apple computer, remembered as what was found best."""
    machine = replace(load_profile("apple-m-series").machine(), bandwidth=0.1)
    shape = shape_of(header_of((model,)))
    best = plan(shape, machine, REQUEST)
    assert best.placement.n_gpu_layers
    tuning_cache.remember(model, machine, REQUEST, best.placement, [])
    return shape, machine, best


@pytest.mark.usefixtures("home")
def test_of_unified_memory_a_tuned_placement_needs_enough_for_gpu_and_host_together(model: Path) -> None:
    shape, machine, best = _planned(model)
    need = sum(account.need for account in best.ledger)
    assert tuning_cache.tuned(model, shape, replace(machine, bytes_free=need), REQUEST) == best.placement
    assert tuning_cache.tuned(model, shape, replace(machine, bytes_free=need - 1), REQUEST) is None


@pytest.mark.usefixtures("home")
def test_what_was_tuned_on_another_processor_is_not_taken(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, machine, best = _planned(model)
    assert tuning_cache.tuned(model, shape, machine, REQUEST) == best.placement
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: Another Processor\n")
    monkeypatch.setattr(hardware, "PROC", tmp_path / "proc")
    assert tuning_cache.tuned(model, shape, machine, REQUEST) is None
