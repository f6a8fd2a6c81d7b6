"""The length of drafts: by what steps of so many tokens cost, planned and measured, and by how often guesses are right."""

from collections.abc import Sequence
from functools import cache

import pytest

from mixcli.engine.draft_pace import LONGEST, DraftPace
from mixcli.engine.step_costs import StepCosts
from profiles.acceptance import STEP_SIZES, expected_tokens
from profiles.drafting import step_costs
from profiles.planner import plan
from profiles.profile_files import load_profile
from profiles.request import PlanRequest
from tests.profiles.file_choices import shapes

BEFORE = 24  # the fixed cap that drafts had


@cache
def planned(model: str, file_type: str, profile: str) -> tuple[float, ...]:
    machine, shape = load_profile(profile).machine(), shapes(model)[file_type]
    found = plan(shape, machine, PlanRequest())
    return step_costs(shape, machine, found.placement, found.layout)


def settled(costs: StepCosts, n_right: int, n_drafted: int) -> DraftPace:
    """Return the pace of an answer whose drafts were often that right."""
    pace = DraftPace(costs)
    for _ in range(50):
        pace.observe(n_drafted, n_right)
    return pace


def measured(planned: Sequence[float], *steps: tuple[int, float]) -> StepCosts:
    costs = StepCosts(planned)
    for n_tokens, seconds in steps:
        costs.observe(n_tokens, seconds)
    return costs


@pytest.mark.parametrize(
    ("model", "file_type", "profile"),
    [("mixtral", "Q3_K_M", "rtx-3090"), ("mixtral", "Q4_K_M", "2x3090"), ("mistral-small-4", "IQ4_XS", "rtx-4090")],
)  # fmt: skip
def test_a_mixture_on_a_card_verifies_long_drafts_where_nearly_all_guesses_are_right(
    model: str, file_type: str, profile: str
) -> None:
    """Experts that 16 tokens read are read for 64 too: what the fixed cap cut off pays most."""
    costs = measured(planned(model, file_type, profile), (1, 0.02))
    length = settled(costs, 200, 200).next_length()
    assert 48 <= length <= LONGEST

    def rate(n: int) -> float:
        return expected_tokens(0.99, n) / costs.seconds(1 + n)

    assert rate(length) > 1.2 * max(map(rate, range(2, BEFORE + 1)))


def test_half_right_guesses_make_short_drafts_or_none() -> None:
    dense = measured(planned("mistral", "Q4_K_M", "rtx-3090"), (1, 0.01))
    mixture = measured(planned("mixtral", "Q3_K_M", "rtx-3090"), (1, 0.01))
    assert 0 < settled(dense, 1, 2).next_length() < 8
    pace = DraftPace(mixture)
    pace.observe(8, 0)
    pace.observe(8, 0)
    assert pace.next_length() == 0


@pytest.mark.parametrize(
    ("model", "profile"), [("mixtral", "rtx-3090"), ("mistral", "rtx-4090"), ("mixtral", "cpu")]
)
def test_planned_costs_grow_with_the_tokens_and_less_than_in_proportion(model: str, profile: str) -> None:
    costs = planned(model, "Q4_K_M", profile)
    assert costs[0] == 1
    assert list(costs) == sorted(costs)
    assert all(cost <= n for n, cost in zip(STEP_SIZES, costs, strict=True))


def test_measured_steps_correct_the_plan() -> None:
    """The plan takes verification for cheap; the engine finds that every token costs a step."""
    flat = [1.0] * len(STEP_SIZES)
    assert DraftPace(measured(flat, (1, 1.0))).next_length() > BEFORE
    dear = measured(flat, *((n, float(n)) for n in STEP_SIZES))
    assert DraftPace(dear).next_length() == 0
    assert dear.seconds(6) == pytest.approx(6, rel=0.1)
    assert dear.seconds(100) == pytest.approx(100, rel=0.25)


def test_sizes_that_were_not_measured_have_the_plans_curve() -> None:
    costs = measured([1, 2, 3, 4, 4, 4, 4, 4], (1, 0.5), (9, 2.5))
    assert costs.seconds(1) == 0.5
    assert costs.seconds(8) == pytest.approx(2.5)
    assert costs.seconds(64) == pytest.approx(2.5)  # as flat as planned, at the height that was measured


def test_a_draft_counts_beside_the_tokens_of_other_requests() -> None:
    """Beside 15 others the experts are read anyway, so a mixture's draft costs little more; where each token costs, they wait for it."""
    mixture = measured([1, 2, 3, 4, 4, 4, 4, 4], (1, 1.0))
    alone, beside = DraftPace(mixture).next_length(), DraftPace(mixture).next_length(15)
    assert beside >= alone > 0
    linear = measured([float(n) for n in STEP_SIZES], (1, 1.0))
    assert DraftPace(linear).next_length(15) == 0


def test_the_time_of_a_draft_model_counts() -> None:
    flat = measured([1.0] * len(STEP_SIZES), (1, 1.0))
    free, slow = DraftPace(flat), DraftPace(flat)
    free.observe(8, 7)
    slow.observe(8, 7, seconds_drafting=8 * 0.3)
    assert 0 < slow.next_length() < free.next_length()
