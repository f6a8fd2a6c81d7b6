"""One choice of file: golden choices on well-known machines, the rule's promises, and what a loss is known from."""

from dataclasses import replace

import pytest

from mixcli.pull.remote_shape import unseen_shape
from profiles.errors import DoesNotFit
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.models import known_models
from profiles.planner import plan, plan_if_it_fits
from profiles.profile_files import load_profile
from profiles.quality import BITS, PUBLISHED, estimated_loss, loss_of
from profiles.quant_choice import Row, choose, chosen_of, pick
from profiles.request import PREFERENCES, PlanRequest, Rule
from tests.profiles.file_choices import GOLDEN, MACHINES, MODELS, choice, line, shapes


@pytest.mark.slow
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
        assert pick(rows, Rule()) == (None, "no quant fits")
        return
    losses = [chosen(rows, prefer).loss.percent for prefer in ("quality", "balanced", "speed")]
    assert losses == sorted(losses)
    rates = [chosen(rows, prefer).decode for prefer in ("quality", "balanced", "speed")]
    assert rates == sorted(rates)


@pytest.mark.parametrize(
    ("model", "machine"),
    [("mixtral", "rtx-3090"), ("mixtral", "apple-m-series"), ("mistral-small-4", "rtx-4090")],
)  # fmt: skip
def test_the_choice_is_the_same_where_types_that_cannot_win_are_not_planned(model: str, machine: str) -> None:
    rows = choice(model, machine).rows
    for rule in (Rule(), Rule("speed"), Rule("balanced", 20.0)):
        found = chosen_of(shapes(model), load_profile(machine).machine(), PlanRequest(), rule)
        assert found == pick(rows, rule)[0]


def test_a_least_rate_holds_for_every_preference_and_is_said_to_be_missed() -> None:
    rows = choice("mixtral", "rtx-3090").rows
    for prefer in PREFERENCES:
        assert chosen(rows, prefer, 80).decode >= 80
    assert chosen(rows, "quality", 16).type == "IQ4_XS"
    assert pick(rows, Rule(min_tps=1000)) == (None, "no quant reaches 1000 tok/s")
    missed = choose(
        {"Q2_K": shapes("mixtral")["Q2_K"]}, Machine(64 * GIB, 8), PlanRequest(), Rule(min_tps=1000)
    )
    assert (missed.chosen, missed.fastest) == (None, missed.row("Q2_K"))


@pytest.mark.parametrize("machine", ["rtx-4090", "rtx-4060-ti-16gb"])
def test_every_row_has_the_plan_that_its_type_has_when_it_is_named(machine: str) -> None:
    for row in choice("mixtral", machine).rows:
        if row.plan is not None:
            assert row.plan == plan(row.shape, load_profile(machine).machine(), PlanRequest())
            assert row.decode == pytest.approx(sum(row.plan.estimate.ends(row.plan.estimate.decode)) / 2)


@pytest.mark.parametrize("prefer", PREFERENCES)
def test_half_the_context_is_taken_where_only_lossy_types_fit_at_all_of_it(prefer: str) -> None:
    card = load_profile("rtx-4090").machine()
    tight = replace(card, gpus=(replace(card.gpus[0], bytes_free=4 * GIB),), bytes_free=16 * GIB)
    found = choose(shapes("mixtral"), tight, PlanRequest(), Rule(prefer))  # type: ignore[arg-type]
    fitting = {row.type: row.n_ctx for row in found.rows if row.plan}
    assert fitting == {"IQ3_S": 4096, "Q3_K_S": 4096, "Q2_K": 8192}
    assert found.chosen is not None
    assert "at a context of 8192 tokens the lowest loss would be 23.2 %" in found.why
    assert found.chosen.type == "IQ3_S"


def test_the_reason_is_one() -> None:
    expected = {
        ("rtx-4090", "balanced"): "balanced, 1.7x the decode of IQ4_XS for 1.3 % more loss",
        ("rtx-4090", "quality"): "quality, the lowest loss with at least 10 tok/s; Q6_K has 7.8",
        ("cpu-avx2-32gb", "balanced"): "balanced, the lowest loss of the quants that fit; IQ4_XS has only 1.1x the decode for 0.5 % more loss",
        ("cpu", "quality"): "quality, never more loss than balanced's choice; no such quant reaches 10 tok/s, and this one decodes 3.6",
    }  # fmt: skip
    for (machine, prefer), why in expected.items():
        assert pick(choice("mixtral", machine).rows, Rule(prefer))[1] == why  # type: ignore[arg-type]
    (only,) = (row for row in choice("mixtral", "rtx-4090").rows if row.type == "Q2_K")
    assert pick([only], Rule(min_tps=50))[1] == "balanced, the only quant with at least 50 tok/s"
    assert pick([only], Rule())[1] == "balanced, the only quant that fits"


def test_what_fits_with_no_context_is_not_chosen() -> None:
    tight = Machine(17 * GIB, 8)
    assert choose(shapes("mixtral"), Machine(8 * GIB, 8), PlanRequest()).chosen is None
    with pytest.raises(DoesNotFit, match="exceeds the trained context of 32768"):
        choose(shapes("mixtral"), tight, PlanRequest(n_ctx=65536))


def test_losses_are_published_or_estimated_between_what_was_published() -> None:
    mixtral, other = shapes("mixtral"), shapes("mistral")
    assert loss_of("Q4_K_M", mixtral["Q4_K_M"]).shown == "1.5 %"
    assert loss_of("Q4_K_M", other["Q4_K_M"]).shown == "~1.5 %"
    assert loss_of("Q5_K_M", mixtral["Q5_K_M"]).basis == "estimated"
    assert loss_of("IQ3_M", mixtral["IQ3_M"]).percent == pytest.approx(PUBLISHED["Q3_K_M"], rel=0.05)
    assert loss_of("IQ3_S", mixtral["IQ3_S"]).percent < 0.7 * loss_of("Q3_K_S", mixtral["Q3_K_S"]).percent
    legacy = unseen_shape(known_models()["mixtral-8x7b"], "Q4_0")
    assert loss_of("Q4_0", legacy).percent > 1.3 * loss_of("Q4_K_S", mixtral["Q4_K_S"]).percent
    for name, percent in PUBLISHED.items():
        assert estimated_loss(BITS[name]) == pytest.approx(percent)
    losses = [estimated_loss(bits / 10) for bits in range(15, 170)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] == 0


@pytest.mark.parametrize("machine", ["rtx-4090", "2x3090"])
def test_asked_for_gpus_alone_there_is_a_plan_where_the_best_one_is_on_them(machine: str) -> None:
    found, request = load_profile(machine).machine(), PlanRequest(n_ctx=8192)
    places = set()
    for shape in shapes("mixtral").values():
        row = Row("", shape, loss_of("Q4_K_M", shape), plan_if_it_fits(shape, found, request))
        alone = plan_if_it_fits(shape, found, replace(request, on_gpus=True))
        assert (alone is not None) == row.is_on_gpus
        if alone:
            assert row.plan
            assert alone.placement == row.plan.placement
        places.add(row.is_on_gpus)
    assert places == {True, False}
