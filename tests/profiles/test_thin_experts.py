"""Mixtures of many thin experts with shared ones, by the true dimensions of Mistral Small 4 and Mistral Large 3: sizes, rates and plans."""

import pytest

from mixcli.pull.remote_shape import unseen_shape
from profiles.dimensions import Dimensions
from profiles.errors import DoesNotFit
from profiles.layout import Layout
from profiles.machine import Gpu, Machine
from profiles.memory import GIB, bytes_kv
from profiles.models import facts_of, known_models
from profiles.placement import Placement
from profiles.planner import PlanRequest, plan
from profiles.profile_files import load_profile
from profiles.rates import GB
from profiles.shape import ModelShape
from profiles.speed import DECODE_EFFICIENCY, decode_rates, prefill_rates


@pytest.fixture(scope="module")
def small() -> ModelShape:
    return unseen_shape(known_models()["mistral-small-4"], "Q4_K_M")


@pytest.fixture(scope="module")
def large() -> ModelShape:
    return unseen_shape(known_models()["mistral-large-3"], "Q4_K_M")


def test_parameters_are_those_of_the_model_cards(small: ModelShape, large: ModelShape) -> None:
    """119 B with 6.5 B active (the card counts one of the two embeddings); 673 B of text in the 675 B of Large 3, 39 B active and the embeddings."""
    assert (round(small.params_total / 1e9), round(small.params_active / 1e9, 1)) == (119, 6.6)
    assert (round(large.params_total / 1e9), round(large.params_active / 1e9)) == (673, 40)


def test_a_cache_has_the_latent_and_its_position_only(small: ModelShape, large: ModelShape) -> None:
    assert bytes_kv(small, 1) == 36 * (256 + 64) * 2
    assert bytes_kv(large, 1) == 61 * (512 + 64) * 2
    assert bytes_kv(small, 1, "q8_0", "q8_0") == 36 * (256 + 64) * 34 // 32


def test_what_every_token_reads_stands_with_the_attention(small: ModelShape, large: ModelShape) -> None:
    """Shared experts are 1/128 of the routed ones; the leading layers of Large 3 have nothing that may live elsewhere."""
    for shape in (small, large):
        for number, layer in enumerate(shape.each_layer()):
            assert (layer.experts == 0) == (number < shape.n_layer_dense)
            assert layer.attention > layer.experts / shape.n_expert
    assert (
        small.bytes_weights
        == sum(one.attention + one.experts for one in small.layers)
        + small.bytes_embedding
        + small.bytes_output
    )


def test_dimensions_survive_another_file_type(small: ModelShape, large: ModelShape) -> None:
    for shape in (small, large):
        other = unseen_shape(facts_of(shape), "Q8_0")
        assert (other.of_a_layer, other.n_layer, other.n_ctx_train) == (
            shape.of_a_layer,
            shape.n_layer,
            shape.n_ctx_train,
        )
        assert isinstance(other, Dimensions)


def test_a_token_reads_its_experts_and_several_share_theirs(small: ModelShape) -> None:
    gpu = Gpu("CUDA0", 200 * GIB, bandwidth=1000.0)
    machine, placement = Machine(8 * GIB, 8, (gpu,)), Placement(4096, n_gpu_layers=37)
    layout = Layout(1, (0,) * 36, ((0, 0, 0),) * 36, 0)
    alone = decode_rates(small, machine, placement, depth=0)
    layers = small.each_layer()
    read = sum(one.attention + one.experts * 4 / 128 for one in layers) + small.bytes_output
    seconds = read / (1000 * GB * DECODE_EFFICIENCY["gpu"])
    overhead = sum(alone.attention(0, 0) for _ in layers) + 2 * alone.hop
    assert alone.seconds(small, layout) == pytest.approx(seconds + overhead)
    together = decode_rates(small, machine, placement, at_once=16, depth=0)
    distinct = 128 * (1 - (1 - 4 / 128) ** 16)  # experts of a layer that 16 tokens use: 51
    assert together.devices[0].matrix_byte / alone.devices[0].matrix_byte == pytest.approx(distinct / 4 / 16)


def test_prefill_with_thin_experts_is_bound_by_what_is_read_of_them(small: ModelShape) -> None:
    """A short micro-batch gives each expert a few tokens: twice the arithmetic helps less than twice the bandwidth."""

    def seconds(**rates: float) -> float:
        machine = Machine(
            8 * GIB, 8, (Gpu("CUDA0", 200 * GIB, **{"bandwidth": 250.0, "tflops": 80.0, **rates}),)
        )
        return prefill_rates(small, machine, Placement(4096, n_ubatch=128)).devices[0].matrix

    assert seconds(bandwidth=500.0) < 0.6 * seconds()
    assert seconds(tflops=160.0) == seconds()


# GiB of experts on the GPUs, at least; None where the machine has too little memory for any placement
PLANS = {
    "rtx-4090": 19.5,
    "2x3090": 41.0,
    "rtx-3060-12gb": None,
}


@pytest.mark.parametrize("profile", PLANS)
def test_plans_on_well_known_machines(small: ModelShape, profile: str) -> None:
    machine, least = load_profile(profile).machine(), PLANS[profile]
    if least is None:
        with pytest.raises(
            DoesNotFit, match=r"the model needs 6\d\.\d GiB .* are free.*; try .*, or .*, or "
        ):
            plan(small, machine, PlanRequest(n_ctx=8192))
    else:
        found = plan(small, machine, PlanRequest(n_ctx=8192))
        *gpus, host = found.ledger
        assert least <= sum(gpu.experts for gpu in gpus) / GIB
        assert all(account.left >= 0 for account in (*gpus, host))
        assert found.layout.n_gpu_layers == 37
        patterns = [pattern for pattern, _ in found.placement.tensor_overrides]
        assert all("gate_up" in one or "ffn_down" in one for one in patterns)
