"""Drafts: what one brings, what verifying it costs, and whether a machine is faster with a draft model beside the large one."""

from dataclasses import dataclass, replace
from itertools import accumulate

from profiles.acceptance import ACCEPTANCE, STEP_SIZES, expected_tokens
from profiles.layout import Layout
from profiles.ledger import Account
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import Plan, plan_if_it_fits
from profiles.request import PlanRequest
from profiles.shape import ModelShape
from profiles.speed import decode_rates, prefill_rates

LONGEST = 16  # of a draft that is considered


def step_costs(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, missing: int = 0
) -> tuple[float, ...]:
    """Return what a step of each of STEP_SIZES tokens of one text costs, in steps of one token; never less than the one before.

    A step takes what its tokens read, or the arithmetic of so many tokens of a full micro-batch, whichever takes longer; `missing` bytes of the
    experts come from disk.
    """
    computing = prefill_rates(shape, machine, placement, placement.n_ctx).seconds(shape, layout, missing)

    def seconds(n: int) -> float:
        reading = decode_rates(shape, machine, placement, n).seconds(shape, layout, missing)
        return n * max(reading, computing if n > 1 else 0.0)

    first, *more = map(seconds, STEP_SIZES)
    return (1.0, *accumulate((one / first for one in more), max))


@dataclass(frozen=True)
class DraftPlan:
    """The plans of both models beside each other, and the expected tokens per second of one text."""

    small: Plan
    large: Plan
    decode: float


def plan_draft(
    small: ModelShape, large: ModelShape, machine: Machine, request: PlanRequest, n_ctx: int
) -> DraftPlan | None:
    """Plan a draft model with a context of `n_ctx`, and the large model in the memory that it leaves; None where they do not both fit."""
    wanted = PlanRequest(n_ctx=min(n_ctx, small.n_ctx_train or n_ctx), n_seq_max=1)
    draft = plan_if_it_fits(small, machine, wanted)
    if draft is None:
        return None
    rest = without(machine, draft.ledger)
    found = plan_if_it_fits(large, rest, request)
    if found is None:
        return None
    missing = max(0, -found.ledger[-1].left)

    def seconds(n_tokens: int) -> float:
        """Return how long the large model takes to verify so many tokens in one step."""
        rates = decode_rates(large, rest, found.placement, n_tokens)
        return n_tokens * rates.seconds(large, found.layout, missing)

    guess = 1 / draft.estimate.decode
    rates = (expected_tokens(ACCEPTANCE, n) / (seconds(n + 1) + n * guess) for n in range(1, LONGEST + 1))
    return DraftPlan(draft, found, max(rates))


def without(machine: Machine, ledger: tuple[Account, ...]) -> Machine:
    """Return a machine with the memory that is left beside what a plan takes; of unified memory its GPU's part is gone for the host too."""
    *gpus, host = ledger
    taken = sum(account.need for account in ledger) if machine.unified else host.need
    return replace(
        machine,
        bytes_free=machine.bytes_free - taken,
        gpus=tuple(
            replace(gpu, bytes_free=gpu.bytes_free - account.need)
            for gpu, account in zip(machine.gpus, gpus, strict=True)
        ),
    )


__all__ = ["DraftPlan", "plan_draft", "step_costs", "without"]
