"""Names and layouts: each tensor of the result against plain arithmetic on the checkpoint's arrays, read in any slabs."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantize.source import TensorSource
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.config_hparams import hparams_from_config
from quantize.sources.hparams import Hparams
from quantize.sources.hparams_metadata import hparams_metadata
from quantize.sources.rope import interleave_halves, rope_factors, split_pairs
from quantize.sources.rows import Float32s
from quantize.sources.tensor_map import map_tensors
from tests.support.checkpoints import bf16_values, pack_safetensors, write_checkpoint, write_native

SMALL: dict[str, Any] = {"n_layer": 2, "n_embd": 24, "n_ff": 40, "n_head": 3, "n_head_kv": 1, "n_expert": 3}


@pytest.fixture(scope="module")
def mixtral(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Float32s], dict[str, TensorSource]]:
    """All arrays of a small Mixtral, and what became of them."""
    folder = write_checkpoint(tmp_path_factory.mktemp("map") / "m", tokenizer=None, n_shards=4, **SMALL)
    checkpoint = open_checkpoint(folder)
    arrays = {name: t.read(0, t.n_rows).reshape(t.shape) for name, t in checkpoint.tensors.items()}
    return arrays, {t.name: t for t in map_tensors(checkpoint, checkpoint.hparams)}


def whole(tensor: TensorSource) -> Float32s:
    return tensor.read(0, tensor.n_rows).reshape(tensor.shape)


def test_experts_are_stacked_in_their_order(mixtral: Any) -> None:
    arrays, mapped = mixtral
    for w, kind in ((1, "gate"), (2, "down"), (3, "up")):
        for layer in range(2):
            prefix = f"model.layers.{layer}.block_sparse_moe.experts."
            expected = np.stack([arrays[f"{prefix}{e}.w{w}.weight"] for e in range(3)])
            np.testing.assert_array_equal(whole(mapped[f"blk.{layer}.ffn_{kind}_exps.weight"]), expected)


def test_a_slab_may_cross_experts(mixtral: Any) -> None:
    tensor = mixtral[1]["blk.1.ffn_up_exps.weight"]
    rows = whole(tensor).reshape(-1, 24)
    for start, stop in ((0, 120), (39, 41), (40, 80), (35, 115), (119, 120), (60, 60)):
        slab = tensor.read(start, stop)
        assert slab.flags.c_contiguous and slab.dtype == np.float32
        np.testing.assert_array_equal(slab, rows[start:stop])


def test_rotary_halves_become_pairs(mixtral: Any) -> None:
    arrays, mapped = mixtral
    for name, heads in (("q", 3), ("k", 1)):
        rows = arrays[f"model.layers.0.self_attn.{name}_proj.weight"]
        pairs = rows.reshape(heads, 2, 4, 24).swapaxes(1, 2).reshape(rows.shape)
        np.testing.assert_array_equal(whole(mapped[f"blk.0.attn_{name}.weight"]), pairs)
    np.testing.assert_array_equal(
        whole(mapped["blk.0.attn_v.weight"]), arrays["model.layers.0.self_attn.v_proj.weight"]
    )


def test_norms_and_routers_stay_float32(mixtral: Any) -> None:
    small = {t.name for t in mixtral[1].values() if t.dtype == "F32"}
    assert small == {
        "output_norm.weight",
        *(f"blk.{i}.{kind}.weight" for i in (0, 1) for kind in ("attn_norm", "ffn_norm", "ffn_gate_inp")),
    }


def test_threads_read_the_same_tensor_at_once(mixtral: Any) -> None:
    tensor = mixtral[1]["blk.0.ffn_gate_exps.weight"]
    rows = whole(tensor).reshape(-1, 24)
    slabs = [(i, min(i + 7, 120)) for i in range(0, 120, 7)] * 20
    with ThreadPoolExecutor(8) as pool:
        for (start, stop), slab in zip(slabs, pool.map(lambda s: tensor.read(*s), slabs), strict=True):
            np.testing.assert_array_equal(slab, rows[start:stop])


def test_mistral_weights_keep_their_rows(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(
        write_native(tmp_path / "m", n_embd=24, n_ff=40, n_head=3, n_head_kv=1, n_expert=2)
    )
    mapped = {t.name: t for t in map_tensors(checkpoint, checkpoint.hparams)}
    for kind, name in (
        ("attn_q", "attention.wq"),
        ("attn_k", "attention.wk"),
        ("ffn_gate_inp", "feed_forward.gate"),
    ):
        source = checkpoint.tensors[f"layers.1.{name}.weight"]
        np.testing.assert_array_equal(whole(mapped[f"blk.1.{kind}.weight"]), whole(source))
    down = [checkpoint.tensors[f"layers.0.feed_forward.experts.{e}.w2.weight"] for e in (0, 1)]
    np.testing.assert_array_equal(
        whole(mapped["blk.0.ffn_down_exps.weight"]), np.stack([whole(t) for t in down])
    )


def test_biases_of_projections_move_with_their_rows(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", architecture="LlamaForCausalLM", tokenizer=None, **SMALL)
    bias = bf16_values((24,), 5)
    pack_safetensors(folder / "model-bias.safetensors", {"model.layers.1.self_attn.q_proj.bias": bias})
    checkpoint = open_checkpoint(folder)
    mapped = {t.name: t for t in map_tensors(checkpoint, checkpoint.hparams)}
    assert mapped["blk.1.attn_q.bias"].dtype == "F32"
    expected = bias.reshape(3, 2, 4).swapaxes(1, 2).reshape(24)
    np.testing.assert_array_equal(whole(mapped["blk.1.attn_q.bias"]), expected)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([2, 4, 8, 64]), st.integers(1, 5), st.data())
def test_reordering_is_undone_by_its_inverse_in_any_slab(
    head_size: int, n_head: int, data: st.DataObject
) -> None:
    rows = np.arange(head_size * n_head * 3, dtype=np.float32).reshape(-1, 3)
    source = TensorSource("q", rows.shape, "F32", lambda start, stop: rows[start:stop].copy(), "q")
    pairs = interleave_halves(source, head_size)
    expected = rows.reshape(n_head, 2, head_size // 2, 3).swapaxes(1, 2).reshape(-1, 3)
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    np.testing.assert_array_equal(pairs.read(start, stop), expected[start:stop])
    np.testing.assert_array_equal(split_pairs(pairs, head_size).read(start, stop), rows[start:stop])


def test_llama3_frequencies_are_kept_blended_or_divided() -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192},
    }
    (factors,) = rope_factors(hparams_from_config(config))
    values = factors.read(0, 1)[0]
    wavelengths = 2 * np.pi * 500000.0 ** (np.arange(64) / 64)
    assert factors.shape == (64,)
    assert (values[wavelengths < 8192 / 4] == 1).all() and (values[wavelengths > 8192] == 8).all()
    between = values[(wavelengths > 8192 / 4) & (wavelengths < 8192)]
    assert len(between) > 2 and (np.diff(between) > 0).all() and (between > 1).all() and (between < 8).all()
    assert rope_factors(hparams_from_config({"architectures": ["LlamaForCausalLM"]})) == []


def test_yarn_and_linear_stretching_become_metadata() -> None:
    def keys(scaling: dict[str, Any]) -> dict[str, Any]:
        config = {"architectures": ["MistralForCausalLM"], "rope_scaling": scaling}
        found = hparams_metadata(hparams_from_config(config), 32000)
        return {k.removeprefix("llama.rope.scaling."): v.value for k, v in found.items() if "scaling" in k}

    assert keys({"type": "linear", "factor": 4}) == {"type": "linear", "factor": 4.0}
    assert keys(
        {
            "rope_type": "yarn",
            "factor": 16.0,
            "original_max_position_embeddings": 8192,
            "beta_fast": 32,
            "attn_factor": 1,
        }
    ) == {
        "type": "yarn",
        "factor": 16.0,
        "original_context_length": 8192,
        "yarn_attn_factor": 1.0,
        "yarn_beta_fast": 32.0,
        "attn_factor": pytest.approx(1 / (1 + 0.1 * np.log(16))),
    }
    stretched = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 8192}
    assert "attn_factor" not in keys(stretched), "llama.cpp computes what transformers takes as the default"
    assert "attn_factor" not in keys(stretched | {"attention_factor": 1 + 0.1 * np.log(16)})
    assert keys({"rope_type": "default"}) == {}


def test_what_a_config_leaves_out_takes_the_defaults_of_its_model_type() -> None:
    mixtral = hparams_from_config({"architectures": ["MixtralForCausalLM"]})
    assert mixtral == Hparams(
        n_layer=32,
        n_ctx=131072,
        n_embd=4096,
        n_ff=14336,
        n_head=32,
        n_head_kv=8,
        n_vocab=32000,
        rms_eps=1e-5,
        rope_base=1e6,
        n_expert=8,
        n_expert_used=2,
    )
    llama = hparams_from_config({"architectures": ["LlamaForCausalLM"], "num_key_value_heads": None})
    assert (llama.n_head_kv, llama.n_ff, llama.head_dim, llama.n_expert) == (32, 11008, 128, 0)


def test_transformers_5_names_of_rope_are_understood() -> None:
    config = {
        "architectures": ["MixtralForCausalLM"],
        "rope_parameters": {"rope_theta": 7e5, "rope_type": "default"},
    }
    assert hparams_from_config(config).rope_base == 7e5
