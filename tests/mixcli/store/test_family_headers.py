"""The header rules of the family's newer architectures, held to llama.cpp: what is refused does not work there, and sound files do."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mixcli.errors import IntegrityError
from mixcli.store.preflight import check_gguf, family_note
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.source import Value, f32, u32
from tests.support.family import FAMILY, parts_of, write_parts, write_small
from tests.support.loader import Loader


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


def changed(
    path: Path, name: str, metadata: Mapping[str, Value | None], tensors: Mapping[str, object]
) -> Path:
    """Write a small model with some metadata, named without the architecture, or tensors replaced; None takes one out."""
    keys, shapes = parts_of(FAMILY[name])
    keys |= {f"{FAMILY[name].architecture}.{key}": value for key, value in metadata.items()}  # type: ignore[misc]
    shapes |= tensors  # type: ignore[arg-type]
    return write_parts(path, {k: v for k, v in keys.items() if v}, {k: v for k, v in shapes.items() if v})


@pytest.mark.parametrize("name", FAMILY)
def test_a_small_model_of_each_architecture_passes_and_works(
    tmp_path: Path, loader: Loader, name: str
) -> None:
    path = write_small(tmp_path / "m.gguf", name)
    assert check_gguf(path).architecture == FAMILY[name].architecture
    assert loader.load(path) == "works"


SMALL, LARGE = "mistral4", "deepseek2"
BROKEN: dict[str, tuple[str, dict[str, Value | None], dict[str, object], str]] = {
    "no latent": (SMALL, {"attention.kv_lora_rank": None}, {}, "kv_lora_rank is missing"),
    "an empty latent": (SMALL, {"attention.kv_lora_rank": u32(0)}, {}, "kv_lora_rank is 0"),
    "another latent": (SMALL, {"attention.kv_lora_rank": u32(16)}, {}, "key_length is 32; it must be 24"),
    "a cache without positions": (SMALL, {"attention.key_length": u32(24)}, {}, "key_length is 24; it must be 32"),
    "two heads in the cache": (SMALL, {"attention.head_count_kv": u32(2)}, {}, "head_count_kv is 2; it must be 1"),
    "an odd number of turned elements": (SMALL, {"rope.dimension_count": u32(7)}, {}, "rope.dimension_count is 7"),
    "nothing but positions": (SMALL, {"attention.key_length_mla": u32(8)}, {}, "key_length_mla is 8"),
    "values of before latent attention": (SMALL, {"attention.value_length_mla": None}, {}, "value_length_mla is missing"),
    "no rank of queries": (SMALL, {"attention.q_lora_rank": None}, {}, "q_lora_rank is missing"),
    "another rank of queries": (SMALL, {"attention.q_lora_rank": u32(16)}, {}, "attn_q_a_norm.weight has the shape (32,)"),
    "no experts": (SMALL, {"expert_count": u32(0), "expert_used_count": u32(0)}, {}, "only 0 of 2 layers are dense"),
    "no shared expert": (SMALL, {"expert_shared_count": u32(0)}, {}, "expert_shared_count is 0"),
    "an unknown number of shared experts": (SMALL, {"expert_shared_count": None}, {}, "expert_shared_count is missing"),
    "absurd shared experts": (SMALL, {"expert_shared_count": u32(1 << 31)}, {}, "expert_shared_count is 2147483648"),
    "two shared experts": (SMALL, {"expert_shared_count": u32(2)}, {}, "ffn_gate_shexp.weight has the shape (32, 64) instead of (64, 64)"),
    "no width of experts": (SMALL, {"expert_feed_forward_length": None}, {}, "expert_feed_forward_length is missing"),
    "another width of experts": (SMALL, {"expert_feed_forward_length": u32(48)}, {}, "instead of (8, 48, 64)"),
    "more dense layers than layers": (LARGE, {"leading_dense_block_count": u32(2)}, {}, "lacks the tensor blk.1.ffn_gate.weight"),
    "an unknown gate": (LARGE, {"expert_gating_func": u32(9)}, {}, "expert_gating_func is 9"),
    "a norm that is a number": (LARGE, {"expert_weights_norm": u32(1)}, {}, "expert_weights_norm is 1"),
    "groups of one expert": (LARGE, {"expert_group_count": u32(8), "expert_group_used_count": u32(2)}, {}, "expert_group_count is 8"),
    "no length of the temperature": (LARGE, {"attention.temperature_length": None}, {}, "temperature_length is missing"),
    "a length of zero": (LARGE, {"attention.temperature_length": u32(0)}, {}, "temperature_length is 0"),
    "a scale that is a whole number": (LARGE, {"attention.temperature_scale": u32(1)}, {}, "temperature_scale is 1; it has type UINT32"),
    "a temperature over no context": ("mistral3", {"rope.scaling.original_context_length": u32(0)}, {}, "original_context_length is 0"),
    "a missing shared expert": (SMALL, {}, {"blk.1.ffn_up_shexp.weight": None}, "lacks the tensor blk.1.ffn_up_shexp.weight"),
    "values of another width": (SMALL, {}, {"blk.0.attn_v_b.weight": (Type.F16, (4, 24, 16))}, "attn_v_b.weight has the shape (4, 24, 16)"),
    "half of a joined matrix": (
        "mistral4, gate and up in one", {}, {"blk.0.ffn_gate_up_exps.weight": (Type.F16, (8, 32, 64))}, "instead of (8, 64, 64)",
    ),
    "a router's bias for other experts": (
        "deepseek2, grouped and biased", {}, {"blk.0.exp_probs_b.bias": (Type.F32, (4,))}, "exp_probs_b.bias has the shape (4,)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_would_end_llama_cpp_is_refused_in_words(tmp_path: Path, loader: Loader, case: str) -> None:
    name, metadata, tensors, words = BROKEN[case]
    path = changed(tmp_path / "m.gguf", name, metadata, tensors)
    with pytest.raises(IntegrityError) as caught:
        check_gguf(path)
    assert words in str(caught.value)
    assert "m.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert loader.load(path) != "works", "llama.cpp has no trouble with this file: preflight is too strict"


def test_a_temperature_needs_no_length_where_it_is_off(tmp_path: Path, loader: Loader) -> None:
    off = {"attention.temperature_scale": f32(0.0), "attention.temperature_length": None}
    path = changed(tmp_path / "m.gguf", LARGE, off, {})
    check_gguf(path)
    assert loader.load(path) == "works"


def test_prediction_layers_make_it_a_model_of_another_family(tmp_path: Path, loader: Loader) -> None:
    """llama.cpp leaves such layers out, so that plans need what it reports."""
    path = changed(tmp_path / "m.gguf", LARGE, {"nextn_predict_layers": u32(1)}, {})
    (note,) = family_note(check_gguf(path))
    assert "a deepseek2 model runs as llama.cpp computes it" in note
    assert loader.load(path) == "works"


def test_not_all_layers_may_be_prediction_layers(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.gguf", SMALL, {"nextn_predict_layers": u32(2)}, {})
    with pytest.raises(IntegrityError, match="nextn_predict_layers is 2, of 2 layers"):
        check_gguf(path)


def test_a_file_of_before_latent_attention_is_for_llama_cpp_to_judge(tmp_path: Path) -> None:
    path = changed(tmp_path / "m.gguf", SMALL, {"attention.key_length_mla": None}, {})
    with pytest.raises(IntegrityError, match=r"llama\.cpp cannot load m\.gguf: tensor .blk\.0\.attn"):
        check_gguf(path)
