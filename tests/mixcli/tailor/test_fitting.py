"""Files for cards: as large as the plan allows, all on the GPUs, and the same for the same machine."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.errors import DoesNotFit
from mixcli.planning.machines import machine_of
from mixcli.tailor.fitting import Fitting, TailorGoal, worthwhile
from profiles.machine import Machine
from profiles.rates import HostRates, ProductRates, TypeRates
from profiles.request import PlanRequest
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.choice import CANDIDATES
from tests.mixcli.tailor.recipes import GPU, fitting_for, lines, mixtral, problem

GIB = 1 << 30


@pytest.mark.slow
def test_files_for_cards_are_those_that_are_kept() -> None:
    kept = Path(__file__).with_name("recipes.txt").read_text("utf-8").splitlines()
    assert list(lines()) == kept, "python -m tests.mixcli.tailor.recipes > tests/mixcli/tailor/recipes.txt"


def test_a_card_is_filled_and_beats_every_standard_file_on_it() -> None:
    fitting = fitting_for(machine_of("rtx-4090"), GPU)
    found = fitting.tailored(GPU)
    assert found.row.is_on_gpus
    assert found.row.plan
    (gpu, _) = found.row.plan.ledger
    assert 0 <= gpu.left <= 0.001 * gpu.bytes_free
    standard = [one for one in fitting.standard() if one.row.is_on_gpus]
    assert found.n_bytes > max(one.n_bytes for one in standard) > 0
    assert found.loss is not None
    assert found.loss < min(one.loss for one in standard if one.loss is not None)


def test_small_cards_get_the_smallest_types_or_a_way_out() -> None:
    card = machine_of("rtx-4090")

    def with_memory(gib: float) -> Machine:
        return replace(card, gpus=(replace(card.gpus[0], bytes_free=int(gib * GIB)),))

    found = fitting_for(with_memory(15), GPU).tailored(GPU)
    assert found.row.is_on_gpus
    assert {T.IQ2_XXS, T.IQ2_XS, T.IQ2_S} & set(found.types.values())
    with pytest.raises(
        DoesNotFit, match=r"no file of mixtral fits wholly on the GPUs: the smallest is 1.*; pass a"
    ):
        fitting_for(with_memory(11), GPU).tailored(GPU)


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
