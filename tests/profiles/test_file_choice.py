"""One choice of file: golden choices on well-known machines, the rule's promises, and what a loss is known from."""

import pytest

from profiles.errors import DoesNotFit
from profiles.file_choice import Row, choose, pick
from profiles.load import load_profile
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.planner import plan
from profiles.quality import BITS, PUBLISHED, estimated_loss, loss_of
from profiles.request import PREFERENCES, Request, Rule
from tests.profiles.file_choices import GOLDEN, MACHINES, MODELS, choice, line, shapes


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("machine", MACHINES)
def test_choices_on_well_known_machines(model: str, machine: str) -> None:
    """Regenerate as tests/profiles/file_choices.py says, and read what changed."""
    known = GOLDEN.read_text("utf-8").splitlines()
    assert line(model, machine) in known


@pytest.mark.parametrize("machine", ["rtx-3090", "rtx-4090"])
def test_what_mixtral_does_on_a_card_with_24_gb(machine: str) -> None:
    found = choice("mixtral", machine)
    assert found.chosen is not None
    assert found.chosen.type == chosen(found.rows, "balanced").type
    assert found.chosen.decode >= 30
    assert chosen(found.rows, "speed").is_on_gpus
    quality = chosen(found.rows, "quality")
    assert quality.decode >= 10
    assert not any(row.decode >= 10 and row.loss.percent < quality.loss.percent for row in found.rows)


def chosen(rows: tuple[Row, ...], prefer: str, min_tps: float | None = None) -> Row:
    found, _ = pick(rows, Rule(prefer, min_tps))  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("machine", MACHINES)
def test_more_speed_never_costs_less_quality(model: str, machine: str) -> None:
    rows = choice(model, machine).rows
    if not any(row.plan for row in rows):
        assert pick(rows, Rule()) == (None, "nothing fits")
        return
    losses = [chosen(rows, prefer).loss.percent for prefer in ("quality", "balanced", "speed")]
    assert losses == sorted(losses)
    rates = [chosen(rows, prefer).decode for prefer in ("quality", "balanced", "speed")]
    assert rates == sorted(rates)


def test_a_least_rate_holds_for_every_preference_and_is_said_to_be_missed() -> None:
    rows = choice("mixtral", "rtx-3090").rows
    for prefer in PREFERENCES:
        assert chosen(rows, prefer, 95).decode >= 95
    assert chosen(rows, "quality", 20).type == "Q4_K_S"
    fastest, why = pick(rows, Rule(min_tps=1000))
    assert fastest is not None
    assert fastest.decode == max(row.decode for row in rows)
    assert why == "none reaches 1000 tok/s, this is the fastest"


def test_the_chosen_row_has_the_plan_that_a_load_will_have() -> None:
    found = choice("mixtral", "rtx-4090").chosen
    assert found is not None
    assert found.plan == plan(found.shape, load_profile("rtx-4090").machine(), Request(n_ctx=8192))


def test_all_types_have_one_context_the_largest_that_any_can_have() -> None:
    tight = Machine(17 * GIB, 8)
    found = choose(shapes("mixtral"), tight, Request())
    assert found.chosen is not None
    assert found.chosen.plan is not None
    assert found.chosen.plan.n_ctx < 8192
    assert {row.plan.n_ctx for row in found.rows if row.plan} == {found.chosen.plan.n_ctx}
    assert choose(shapes("mixtral"), Machine(8 * GIB, 8), Request()).chosen is None
    with pytest.raises(DoesNotFit, match="trained for 32768"):
        choose(shapes("mixtral"), tight, Request(n_ctx=65536))


def test_losses_are_published_or_estimated_between_what_was_published() -> None:
    mixtral, other = shapes("mixtral"), shapes("mistral")
    assert loss_of("Q4_K_M", mixtral["Q4_K_M"]).shown == "1.5 %"
    assert loss_of("Q4_K_M", other["Q4_K_M"]).shown == "~1.5 %"
    assert loss_of("Q5_K_M", mixtral["Q5_K_M"]).basis == "estimated"
    for name, percent in PUBLISHED.items():
        assert estimated_loss(BITS[name]) == pytest.approx(percent)
    losses = [estimated_loss(bits / 10) for bits in range(15, 170)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0
