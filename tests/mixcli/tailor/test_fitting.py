"""Files for cards: as large as the plan allows, all on the GPUs, and the same for the same machine."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mixcli.errors import DoesNotFit
from mixcli.planning.machines import machine_of
from mixcli.pull.remote_shape import source_of
from mixcli.tailor.fitting import Fitting, TailorGoal, candidates_for, worthwhile
from mixcli.tailor.subject import TailorSubject
from profiles.machine import Machine
from profiles.models import known_models
from profiles.rates import HostRates, ProductRates, TypeRates
from profiles.request import PlanRequest
from quantize.ggml_types import BLOCK
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.choice import CANDIDATES, TailoringProblem, is_free

GIB = 1 << 30


@cache
def mixtral() -> TailorSubject:
    return TailorSubject(source_of(known_models()["mixtral-8x7b"]), "mixtral", None, "mixtral")


def problem(candidates: tuple[T, ...]) -> TailoringProblem:
    """Return losses as measured ones are: four times smaller for each bit, and layers that differ."""
    random = np.random.default_rng(4)
    bits = np.array([8 * BLOCK[one][1] / BLOCK[one][0] for one in candidates])
    model = mixtral().model
    costs = {one.name: random.lognormal(0, 0.7) * 4.0**-bits for one in model.tensors if is_free(one)}
    return TailoringProblem(model.tensors, candidates, costs)


def fitted(machine: Machine, n_ctx: int = 8192) -> tuple[Fitting, TailorGoal]:
    goal = TailorGoal("gpu")
    return Fitting(mixtral(), problem(candidates_for(mixtral(), goal, machine)), machine, PlanRequest(n_ctx=n_ctx)), goal  # fmt: skip


@pytest.mark.parametrize(("profile", "gib"), [("rtx-4090", 21.0), ("rtx-3090", 21.0)])
def test_a_card_is_filled(profile: str, gib: float) -> None:
    machine = machine_of(profile)
    fitting, goal = fitted(machine)
    found = fitting.tailored(goal)
    assert found.row.is_on_gpus
    assert found.row.plan
    (gpu, _) = found.row.plan.ledger
    assert 0 <= gpu.left <= 0.001 * gpu.bytes_free
    standard = [one for one in fitting.standard() if one.row.is_on_gpus]
    assert found.n_bytes > max(one.n_bytes for one in standard) > 0
    assert found.loss is not None
    assert found.loss < min(one.loss for one in standard if one.loss is not None)
    assert found.n_bytes / GIB == pytest.approx(gib, abs=1.0)


def test_small_cards_get_the_smallest_types_or_a_way_out() -> None:
    card = machine_of("rtx-4090")

    def with_memory(gib: float) -> Machine:
        return replace(card, gpus=(replace(card.gpus[0], bytes_free=int(gib * GIB)),))

    fitting, goal = fitted(with_memory(15))
    found = fitting.tailored(goal)
    assert found.row.is_on_gpus
    assert {T.IQ2_XXS, T.IQ2_XS, T.IQ2_S} & set(found.types.values())
    fitting, goal = fitted(with_memory(11))
    with pytest.raises(
        DoesNotFit, match=r"no file of mixtral is all on the GPUs: the smallest has 1.*; pass a"
    ):
        fitting.tailored(goal)


def test_a_rate_is_met_with_the_largest_file_that_has_it() -> None:
    machine, request = machine_of("rtx-4090"), PlanRequest(n_ctx=8192)
    fitting = Fitting(mixtral(), problem(CANDIDATES), machine, request)
    found = fitting.tailored(TailorGoal("tps", 30.0))
    assert 30.0 <= found.row.decode < 31.0
    assert not found.row.is_on_gpus
    with pytest.raises(DoesNotFit, match="decodes more slowly; pass a smaller --target-tps or --ctx"):
        fitting.tailored(TailorGoal("tps", 5000.0))


def test_types_that_a_processor_computes_slowly_are_left_out() -> None:
    def rates(name: str, decode: float) -> TypeRates:
        return TypeRates(name, ProductRates(decode, (1, 1, 1), (1, 1, 1)))

    known = HostRates((rates("Q3_K", 10.0), rates("IQ3_S", 4.6), rates("Q4_K", 12.0), rates("Q2_K", 6.0)))
    # Q2_K: 2.6 bits at 6 GB/s take longer than 3.4 bits at 10 GB/s
    assert worthwhile((T.Q2_K, T.IQ3_XXS, T.Q3_K, T.IQ3_S, T.Q4_K, T.Q6_K), known) == (T.Q3_K, T.Q4_K, T.Q6_K)
