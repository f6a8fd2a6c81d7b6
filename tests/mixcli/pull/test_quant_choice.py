"""Which types are planned and at which sizes, and what is shown of the choice."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.errors import DoesNotFit
from mixcli.planning import report
from mixcli.planning.report import subject_of
from mixcli.pull.quant_choice import (
    Target,
    better_type,
    choices_of,
    how_it_runs,
    rows_of,
    shapes_of_types,
    type_to_make,
)
from mixcli.pull.remote_shape import source_of, unseen_shape
from mixcli.store.catalog import catalog
from profiles.errors import DoesNotFit as PlanDoesNotFit
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.models import known_models
from profiles.planner import plan
from profiles.profile_files import load_profile
from profiles.quality import BITS
from profiles.request import Rule
from profiles.shape import ModelShape
from tests.conftest import Runner
from tests.support import small_gguf


def test_a_file_has_its_own_size_and_the_quantizers_types() -> None:
    shape = unseen_shape(known_models()["mixtral"], "Q8_0")
    sizes = {"Q3_K_M": 20_000_000_000, "Q4_K_L": 30_000_000_000, "Q2_K": None, "FANCY": None}
    found = shapes_of_types(shape, sizes)
    assert set(found) == {"Q3_K_M", "Q4_K_L", "Q2_K"}, "without a size only what can be made is known"
    assert (found["Q3_K_M"].bytes_weights, found["Q4_K_L"].bytes_weights) == (20_000_000_000, 30_000_000_000)
    assert "Q3_K" in found["Q3_K_M"].types
    assert found["Q2_K"] == unseen_shape(known_models()["mixtral"], "Q2_K")


def test_a_model_that_llama_cpp_cannot_be_asked_about_is_scaled() -> None:
    shape = unseen_shape(known_models()["mistral"], "Q8_0")
    odd = shapes_of_types(replace(shape, n_ff=0), {"Q4_K_M": None, "MINE": 7 << 30})
    assert odd["Q4_K_M"].bytes_weights == int(shape.params_total * BITS["Q4_K_M"] / 8)
    assert odd["MINE"].bytes_weights == 7 << 30


@pytest.mark.parametrize(("prefer", "best"), [("balanced", "Q3_K_M"), ("quality", "Q4_K_M")])
def test_the_catalog_is_planned_once_for_equal_dimensions(prefer: str, best: str) -> None:
    machine = load_profile("rtx-3090").machine()
    entries = [catalog()[name] for name in ("mixtral", "dolphin-mixtral", "demo")]
    mixtral, dolphin, demo = choices_of(entries, Target(lambda _: machine, rule=Rule(prefer)))  # type: ignore[arg-type]
    assert mixtral is dolphin
    assert mixtral.chosen is not None
    assert mixtral.chosen.type == best
    assert (demo.chosen, demo.rows) == (None, ())
    rows = rows_of(mixtral, "Q8_0", named=True)
    assert [row.reason for row in rows if row.type in {"Q8_0", "Q3_K_L"}] == ["asked for", ""]
    assert f"{prefer} would choose this one" in next(row.reason for row in rows if row.type == best)


def test_every_model_of_the_catalog_has_dimensions_that_make_its_parameters() -> None:
    for known in catalog().values():
        if known.builder == "hub":
            shape = unseen_shape(known_models()[known.name], "Q4_0")
            assert shape.params_total / 1e9 == pytest.approx(known.parameters, rel=0.015), known.name
            assert shape.params_active / 1e9 == pytest.approx(known.active, rel=0.03), known.name
            assert known.context <= shape.n_ctx_train or known.name == "mistral-nemo", known.name


SMALL_4_REFUSED = {"rtx-3060-12gb"}  # with 32 GB of RAM


@pytest.mark.slow
@pytest.mark.parametrize(
    "profile", ["rtx-3090", "rtx-4090", "rtx-5090", "2x3090", "cpu", "rtx-3060-12gb", "rtx-4060-ti-16gb"]
)
def test_a_mixture_of_thin_experts_is_planned_before_it_is_downloaded(profile: str) -> None:
    """All types, the plan of the one that is chosen, and what would be possible instead."""
    machine = load_profile(profile).machine()
    target = Target(lambda _: machine)
    subject = subject_of("mistral-small-4", None, target)
    assert subject.planned is not None
    found = subject.planned.chosen.plan if subject.planned.chosen else None
    others = report.others(subject, machine, target.request, found) if found else []
    assert (found is None) == (profile in SMALL_4_REFUSED)
    if found is None:
        with pytest.raises(PlanDoesNotFit, match=r"41\.8 GiB .* are free .*; try "):
            plan(subject.shape, machine, target.request)
        return
    assert min(account.left for account in found.ledger) >= 0
    assert found.estimate.decode > 5
    assert others
    weights = sum(account.weights for account in found.ledger)
    assert weights == subject.shape.bytes_weights


def test_search_plans_for_a_profile(mixcli: Runner) -> None:
    (row,) = json.loads(
        mixcli("search", "8x22b", "function", "--profile", "2x3090", "--prefer", "speed", "--json").stdout
    )
    (chosen,) = [one for one in row["choice"] if one["chosen"]]
    assert row["fits"] == chosen["type"]
    assert chosen["bytes_on_gpus"] + chosen["bytes_in_memory"] == chosen["size"]


def test_an_importance_matrix_is_advised_from_the_largest_quant_that_fits(mixcli: Runner) -> None:
    where = ("--profile", "cpu", "--ram", "32GiB")
    done = mixcli("pull", "mixtral", "--quant", "Q3_K_M", "--imatrix", "auto", *where)
    assert done.returncode == 2
    assert "run `mixcli pull mixtral:Q5_K_M --profile cpu --ram 32GiB` first" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "asked", [("--ctx", "32768"), ("--vram", "12GiB", "--ram", "20GiB"), ("--kv", "q8_0")]
)
def test_search_plans_for_what_is_asked_as_plan_and_pull_do(mixcli: Runner, asked: tuple[str, ...]) -> None:
    asked = (*asked, "--profile", "rtx-4090")
    (found,) = (
        row
        for row in json.loads(mixcli("search", "mixtral", *asked, "--json").stdout)
        if row["name"] == "mixtral"
    )
    planned = json.loads(mixcli("plan", "mixtral", *asked, "--json").stdout)
    assert found["choice"] == planned["types"]
    assert f"mixtral:{found['fits']}" == planned["model"]
    plain = json.loads(mixcli("search", "mixtral", "--profile", "rtx-4090", "--json").stdout)
    assert found["choice"] not in [row["choice"] for row in plain], "it makes a difference"


def test_what_is_one_file_or_made_here_leaves_nothing_to_prefer(mixcli: Runner, tmp_path: Path) -> None:
    path = small_gguf.write(tmp_path / "tiny-F16.gguf", small_gguf.gguf())
    assert mixcli("import", str(path), "--name", "tiny").returncode == 0
    for command in (("plan", "tiny"), ("plan",), ("tune", "-m", "tiny")):
        for rule, option in (
            (("--prefer", "balanced"), "--prefer"),
            (("--prefer", "speed"), "--prefer"),
            (("--min-tps", "1"), "--min-tps"),
        ):
            done = mixcli(*command, *rule)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
            assert f"{option} chooses a quant, but tiny:F16 is a single file; remove {option}" in done.stderr
    made = mixcli("pull", "demo", "--ctx", "2048")
    assert (made.returncode, "--ctx has no effect on demo" in made.stderr) == (2, True), made.stderr


def test_tune_measures_the_preferred_type_and_names_how_to_get_it(mixcli: Runner) -> None:
    ask = ("tune", "-m", "mixtral", "--profile", "rtx-4090", "--prefer")
    speed, quality = (mixcli(*ask, prefer) for prefer in ("speed", "quality"))
    assert (speed.returncode, quality.returncode) == (2, 2)
    assert "run `mixcli pull mixtral:IQ3_M`" in speed.stderr
    assert "run `mixcli pull mixtral:Q5_K_M`" in quality.stderr


def test_what_is_named_needs_no_rates_of_other_types() -> None:
    asked: list[set[str]] = []

    def machine_for(shapes: Sequence[ModelShape]) -> Machine:
        asked.append({name for shape in shapes for name in shape.types})
        return Machine(64 * GIB, 8)

    model = source_of(known_models()["mistral"])
    named, planned = type_to_make(model, "mine", "Q8_0", Target(machine_for))
    assert (named, planned.row("Q4_K_M").plan is not None) == ("Q8_0", True)
    assert asked == [{"Q8_0"}]
    chosen, _ = type_to_make(model, "mine", None, Target(machine_for))
    assert chosen in BITS
    assert {"Q2_K", "Q4_K", "Q8_0"} <= asked[1]
    with pytest.raises(
        DoesNotFit, match=r"no quant of mine fits here: the smallest, Q2_K, is 2\.7 GB, .* --quant Q2_K"
    ):
        type_to_make(model, "mine", None, Target(lambda _: Machine(1 * GIB, 8)))


def test_a_better_type_is_known_for_what_has_known_dimensions() -> None:
    target = Target(lambda _: load_profile("rtx-4090").machine())
    better = better_type("mixtral:Q5_K_M", target)
    assert better is not None
    assert better.type == "Q3_K_L"
    assert how_it_runs(better).startswith("decode ")
    assert [better_type(label, target) for label in ("mixtral:Q3_K_L", "demo:Q8_0", "/a/file.gguf")] == [
        None
    ] * 3
