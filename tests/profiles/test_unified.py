"""Unified memory is one memory: what a GPU takes of it is gone for the host, for a draft model, and for what was measured before."""

from dataclasses import replace

from mixcli.pull.remote_shape import unseen_shape
from profiles.drafting import plan_draft
from profiles.ledger import shortage
from profiles.machine import Machine
from profiles.models import known_models
from profiles.planner import plan_if_it_fits
from profiles.profile_files import load_profile
from profiles.request import PlanRequest
from profiles.shape import ModelShape


def apple(gigabytes: float) -> Machine:
    """Return an Apple computer with so much free, all of which its GPU may take."""
    machine = load_profile("apple-m-series").machine()
    n_bytes = int(gigabytes * 1e9)
    return replace(
        machine, bytes_free=n_bytes, gpus=tuple(replace(gpu, bytes_free=n_bytes) for gpu in machine.gpus)
    )


def shape(name: str) -> ModelShape:
    return unseen_shape(known_models()[name], "Q8_0")


def test_a_draft_and_its_large_model_fit_together() -> None:
    large, small = shape("mistral"), shape("ministral-3-3b-reasoning")
    n_found = 0
    for gigabytes in range(9, 22):
        machine = apple(gigabytes)
        if both := plan_draft(small, large, machine, PlanRequest(), 8192):
            n_found += 1
            need = sum(account.need for plan in (both.small, both.large) for account in plan.ledger)
            assert need <= machine.bytes_free, f"{need:,} bytes of {gigabytes} GB"
    assert 0 < n_found < 13, "both sides of the edge were seen"


def test_the_shortage_of_unified_memory_is_that_of_both() -> None:
    one, machine = shape("mistral"), apple(64)
    plan = plan_if_it_fits(one, machine, PlanRequest(n_ctx=8192))
    assert plan
    assert shortage(plan.ledger, machine) is None
    need = sum(account.need for account in plan.ledger)
    assert shortage(plan.ledger, replace(machine, bytes_free=need - 5)) == ("unified memory", 5)
    assert shortage(plan.ledger, replace(machine, bytes_free=need - 5, unified=False)) is None
