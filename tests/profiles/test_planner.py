"""Shapes, sizes and plans: pure numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import DoesNotFit
from profiles.memory import bytes_compute, bytes_kv
from profiles.placement import Placement
from profiles.planner import GIB, MIN_CTX, Machine, Request, plan
from profiles.shape import ModelShape, model_shape

MIXTRAL = ModelShape(
    n_layer=32,
    n_embd=4096,
    n_ff=14336,
    n_head=32,
    n_head_kv=8,
    head_dim_k=128,
    head_dim_v=128,
    n_expert=8,
    n_expert_used=2,
    n_vocab=32000,
    n_ctx_train=32768,
    bytes_experts=27 * GIB,
    bytes_other=1 * GIB,
    params_total=46_702_792_704,
    params_active=12_879_425_536,
)


def test_kv_of_mixtral_is_128_kib_a_token() -> None:
    assert bytes_kv(MIXTRAL, 1) == 131_072
    assert bytes_kv(MIXTRAL, 1, "q8_0", "q8_0") == 69_632
    assert bytes_kv(MIXTRAL, 4096) == 4096 * 131_072


def test_compute_of_mixtral_at_ubatch_512_and_4096_tokens_is_204_mib() -> None:
    assert bytes_compute(MIXTRAL, 512, 4096) == 204 << 20


def test_a_shape_counts_experts_apart() -> None:
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.embedding_length": 8,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
        "llama.feed_forward_length": 16,
        "llama.expert_count": 4,
        "llama.expert_used_count": 2,
        "llama.context_length": 64,
    }
    tensors = [
        ("token_embd.weight", 80, 160),
        ("blk.0.ffn_up_exps.weight", 512, 288),
        ("blk.0.ffn_gate_inp.weight", 32, 128),
    ]
    shape = model_shape(metadata, tensors)
    assert (shape.bytes_experts, shape.bytes_other, shape.n_vocab) == (288, 288, 10)
    assert (shape.params_total, shape.params_active) == (624, 80 + 32 + 256)
    assert (shape.head_dim_k, shape.n_head_kv) == (4, 1)


def test_the_whole_context_is_kept_when_it_was_asked_for() -> None:
    assert plan(MIXTRAL, Machine(64 * GIB, 8), Request(n_ctx=16384)).n_ctx == 16384
    with pytest.raises(DoesNotFit, match=r"needs 32\.5 GiB .* 30\.0 GiB are free; try --ctx \d+") as refusal:
        plan(MIXTRAL, Machine(30 * GIB, 8), Request(n_ctx=32768))
    way_out = int(str(refusal.value).rsplit(" ", 1)[1])
    assert plan(MIXTRAL, Machine(30 * GIB, 8), Request(n_ctx=way_out)).n_ctx == way_out


def test_a_context_that_nobody_asked_for_is_halved_until_it_fits() -> None:
    assert plan(MIXTRAL, Machine(64 * GIB, 8), Request()).n_ctx == 8192
    assert plan(MIXTRAL, Machine(29 * GIB, 8), Request()).n_ctx < 8192


def test_a_context_beyond_the_models_own_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="trained for 32768"):
        plan(MIXTRAL, Machine(512 * GIB, 8), Request(n_ctx=65536))


def test_too_little_memory_says_need_have_and_a_way_out() -> None:
    with pytest.raises(
        DoesNotFit, match=r"needs 28\.\d GiB .* 16\.0 GiB are free; try a smaller type"
    ) as refusal:
        plan(MIXTRAL, Machine(16 * GIB, 8), Request())
    assert refusal.value.exit_code == 4


@given(
    gib=st.floats(0.5, 600),
    n_ctx=st.none() | st.integers(64, 32768),
    weights=st.integers(1 << 20, 300 * GIB),
    cores=st.integers(0, 256),
)
def test_a_plan_never_needs_more_than_there_is(
    gib: float, n_ctx: int | None, weights: int, cores: int
) -> None:
    shape = replace(MIXTRAL, bytes_experts=weights)
    machine = Machine(int(gib * GIB), cores)
    try:
        placement = plan(shape, machine, Request(n_ctx))
    except DoesNotFit:
        smallest = n_ctx or MIN_CTX
        assert shape.bytes_weights + bytes_kv(shape, smallest) > machine.bytes_free - (2 * GIB)
        return
    need = (
        shape.bytes_weights
        + bytes_kv(shape, placement.n_ctx)
        + bytes_compute(shape, placement.n_ubatch, placement.n_ctx)
    )
    assert need <= machine.bytes_free
    assert placement.n_threads >= 1
    assert placement.n_ctx == n_ctx or n_ctx is None


def test_a_placement_survives_json() -> None:
    placement = Placement(
        tensor_overrides=((r"blk\.1\.ffn_up_exps", "CPU"),), tensor_split=(0.5, 0.5), type_k="q8_0"
    )
    assert Placement.from_json(placement.to_json()) == placement
    with pytest.raises(ValueError, match="not fields of a placement: n_gpus"):
        Placement.from_json('{"n_gpus": 2}')
