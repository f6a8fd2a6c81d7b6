"""Numbers of a model are claims: what its tensors contradict, and what llama.cpp could not do with them, is a sentence."""

import tracemalloc
from dataclasses import replace

import pytest

from profiles.errors import BadModel, BadRequest
from profiles.memory import KV_TYPES, kv_types_of
from profiles.planner import GIB, Gpu, Machine, PlanRequest, plan
from profiles.shape import model_shape

from .test_planner import MIXTRAL

HOST = Machine(64 * GIB, 8)
METADATA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 1,
    "llama.embedding_length": 8,
    "llama.attention.head_count": 2,
    "llama.context_length": 64,
}
TENSORS = [("token_embd.weight", 80, 160, "F16"), ("blk.0.attn_q.weight", 64, 256, "F32")]

CLAIMS = {
    "more layers than tensors": ({"llama.block_count": 1 << 28}, "block_count is 268,435,456, but the file has tensors of 1 layers"),
    "no layers": ({"llama.block_count": 0}, "block_count is 0"),
    "layers in words": ({"llama.block_count": "many"}, "block_count is 'many'"),
    "a flag": ({"llama.block_count": True}, "block_count is true"),
    "nothing": ({"llama.block_count": None}, "has no llama.block_count"),
    "no width": ({"llama.embedding_length": 0}, "embedding_length is 0"),
    "no heads": ({"llama.attention.head_count": 0}, "head_count is 0"),
    "heads that differ": ({"llama.attention.head_count": [2, 4]}, "differs between layers"),
    "heads for a million layers": ({"llama.attention.head_count": range(1 << 20)}, "has 1,048,576 values"),
    "negative": ({"llama.attention.head_count_kv": -2}, "head_count_kv is -2"),
    "not a number": ({"llama.context_length": float("nan")}, "context_length is NaN"),
    "beyond any": ({"llama.feed_forward_length": 1 << 40}, "feed_forward_length is 1099511627776"),
    "another architecture": ({"general.architecture": "bert"}, "has no bert.embedding_length"),
    "no architecture": ({"general.architecture": None}, "has no general.architecture"),
}  # fmt: skip


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim_that_cannot_be_is_named_and_costs_nothing(case: str) -> None:
    change, words = CLAIMS[case]
    tracemalloc.start()
    try:
        with pytest.raises(BadModel) as caught:
            model_shape({**METADATA, **change}, TENSORS)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert words in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_value_for_each_layer_that_is_always_the_same() -> None:
    shape = model_shape({**METADATA, "llama.attention.head_count_kv": [1, 1]}, TENSORS)
    assert shape.n_head_kv == 1


def test_a_tensor_of_an_absurd_layer_makes_no_layers() -> None:
    shape = model_shape(
        METADATA, [*TENSORS, ("blk.99999999.attn_q.weight", 1, 4, ""), ("blk.70000.attn_q.weight", 1, 4, "")]
    )
    assert len(shape.layers) == 1


@pytest.mark.parametrize("head", [(80, 80), (128, 80), (16, 128)])
@pytest.mark.parametrize("kind", [kind for kind, (_, block) in KV_TYPES.items() if block > 1])
def test_a_cache_whose_blocks_do_not_divide_a_head_is_refused_by_the_plan(
    head: tuple[int, int], kind: str
) -> None:
    shape = replace(MIXTRAL, head_dim_k=head[0], head_dim_v=head[1])
    with pytest.raises(BadRequest, match=rf"in {kind} has blocks of 32 values.*--kv f16") as caught:
        plan(shape, HOST, PlanRequest(kv=kind))
    assert caught.value.exit_code == 2
    assert kv_types_of(shape) == ("f32", "f16", "bf16")


def test_such_a_cache_is_not_taken_unasked() -> None:
    shape = replace(MIXTRAL, head_dim_k=80, head_dim_v=80)
    tight = Machine(29 * GIB, 8)  # where 8 bits would be tried before a smaller context
    for kv in ("auto", None):
        assert plan(shape, tight, PlanRequest(kv=kv)).placement.type_k == "f16"
    only_small = replace(HOST, kv_types=("q8_0",), gpus=(Gpu("card", 24 * GIB, 900.0),))
    assert plan(shape, only_small, PlanRequest()).placement.type_v == "f16"
    assert plan(MIXTRAL, HOST, PlanRequest(kv="q8_0")).placement.type_k == "q8_0"


def test_an_unknown_cache_type_is_a_sentence() -> None:
    with pytest.raises(BadRequest, match="invalid KV cache type 'q9'"):
        plan(MIXTRAL, HOST, PlanRequest(kv="q9"))


def test_of_a_family_that_is_not_known_the_largest_value_counts() -> None:
    metadata = {key.replace("llama", "other"): value for key, value in METADATA.items()}
    metadata |= {"general.architecture": "other", "other.attention.head_count_kv": [1, 2, 0]}
    assert model_shape(metadata, TENSORS).n_head_kv == 2


def test_dense_layers_among_those_of_a_mixture_stay_with_their_attention() -> None:
    """As Llama 4 has them: only stacks of experts may lie on another device than their layer."""
    metadata = {key.replace("llama", "other"): value for key, value in METADATA.items()}
    metadata |= {"general.architecture": "other", "other.block_count": 2}
    metadata |= {"other.expert_count": 4, "other.expert_used_count": 1}
    shape = model_shape(
        metadata,
        [
            *TENSORS,
            ("blk.0.ffn_gate.weight", 64, 256, "F32"),
            ("blk.1.ffn_gate_up_exps.weight", 512, 1024, "F16"),
            ("blk.1.ffn_down_exps.weight", 256, 512, "F16"),
            ("blk.1.ffn_down_exps.bias", 32, 128, "F32"),
        ],
    )
    assert [(one.attention, one.gate, one.up, one.down) for one in shape.layers] == [
        (512, 0, 0, 0),
        (0, 1024, 0, 640),
    ]
    assert shape.layers[1].types == ("F16", "", "F16")
    assert shape.is_fused
