"""Checkpoints with latent attention, YaRN and images: how their tensors are cut, and what is refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source
from tests.quantize.vocab.small_bpe import small_bpe
from tests.support.broken_checkpoints import SMALL, refused
from tests.support.checkpoints import Arrays, write_checkpoint, write_json
from tests.support.newer_checkpoints import (
    MLA,
    N_HEAD,
    NATIVE_YARN,
    YARN,
    write_large3,
    write_mistral3,
    write_mistral4,
)


def test_keys_and_values_of_the_latent_are_cut_by_heads(tmp_path: Path) -> None:
    """In any slices of rows: of the transposed keys, a row is a column of the checkpoint."""
    checkpoint = open_checkpoint(write_mistral4(tmp_path / "m", n_layer=1))
    whole = checkpoint.tensors["model.language_model.layers.0.self_attn.kv_b_proj.weight"]
    heads = whole.read(0, whole.n_rows).reshape(N_HEAD, -1, MLA["kv_lora_rank"])
    nope = MLA["qk_nope_head_dim"]
    tensors = {tensor.name: tensor for tensor in model_source(checkpoint).tensors}
    for name, expected in (
        ("attn_k_b", heads[:, :nope].transpose(0, 2, 1)),
        ("attn_v_b", heads[:, nope:]),
    ):
        tensor = tensors[f"blk.0.{name}.weight"]
        assert tensor.shape == expected.shape
        rows = expected.reshape(-1, expected.shape[-1])
        for start in range(0, len(rows), 7):
            for stop in (start + 1, start + 5, len(rows)):
                np.testing.assert_array_equal(
                    tensor.read(start, min(stop, len(rows))), rows[start:stop], strict=True
                )


def test_a_mixtral_whose_experts_are_stacked_is_the_same(tmp_path: Path) -> None:
    """transformers keeps them so in memory: gate and up of all experts in one tensor, down in another."""

    def stacked(arrays: Arrays) -> Arrays:
        experts = {name: array for name, array in arrays.items() if ".experts." in name}
        kinds = {
            kind: np.stack([array for name, array in experts.items() if name.endswith(f"{kind}.weight")])
            for kind in ("w1", "w2", "w3")
        }
        renamed = {
            name.replace("block_sparse_moe", "mlp"): array
            for name, array in arrays.items()
            if name not in experts
        }
        return renamed | {
            "model.layers.0.mlp.experts.gate_up_proj": np.concatenate([kinds["w1"], kinds["w3"]], 1),
            "model.layers.0.mlp.experts.down_proj": kinds["w2"],
        }

    small = {**SMALL, "tokenizer": "v1"}
    single, whole = (
        {tensor.name: tensor for tensor in model_source(open_checkpoint(folder)).tensors}
        for folder in (
            write_checkpoint(tmp_path / "single", **small),
            write_checkpoint(tmp_path / "stacked", **small, change=stacked),
        )
    )
    assert single.keys() == whole.keys()
    for name, tensor in whole.items():
        assert tensor.shape == single[name].shape
        for start, stop in ((0, tensor.n_rows), (tensor.n_rows // 3, tensor.n_rows)):
            np.testing.assert_array_equal(tensor.read(start, stop), single[name].read(start, stop))


def test_a_tied_output_is_left_out_as_the_converter_does(tmp_path: Path) -> None:
    folder = write_mistral4(tmp_path / "m", n_layer=1)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = True
    write_json(folder / "config.json", config)
    assert "output.weight" not in {tensor.name for tensor in model_source(open_checkpoint(folder)).tensors}


def test_what_a_text_model_leaves_out_takes_the_defaults_of_its_type(tmp_path: Path) -> None:
    write_json(
        tmp_path / "config.json",
        {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {"model_type": "mistral4"}},
    )
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    found = open_checkpoint(tmp_path).hparams
    assert (found.architecture, found.n_layer, found.n_expert, found.n_expert_used) == (
        "mistral4",
        36,
        128,
        4,
    )
    assert found.mla is not None and found.temperature is not None and found.rope_scaling is not None
    assert (found.mla.kv_rank, found.temperature.length, found.rope_base) == (256, 8192, 10000.0)
    assert found.rope_scaling.parameters["factor"] == 128


def test_ids_of_special_tokens_are_those_of_the_text_model(tmp_path: Path) -> None:
    """But what the whole model says comes first, as in llama.cpp's converter."""
    folder = write_mistral3(tmp_path / "m")
    (folder / "tekken.json").unlink()
    write_json(folder / "tokenizer.json", small_bpe())
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"bos_token_id": 1, "eos_token_id": 2}
    write_json(folder / "config.json", config | {"eos_token_id": 3})
    found = model_source(open_checkpoint(folder)).metadata
    assert [found[f"tokenizer.ggml.{kind}_token_id"].value for kind in ("bos", "eos")] == [1, 3]


def without(*endings: str) -> Any:
    def change(arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if not name.endswith(endings)}

    return change


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        ("0.self_attn.kv_b_proj.weight", r"lacks 2 of the model's tensors, blk\.0\.attn_k_b\.weight first"),
        ("1.mlp.gate.weight", r"blk\.1\.ffn_gate_inp\.weight first"),
        ("1.mlp.shared_experts.up_proj.weight", r"blk\.1\.ffn_up_shexp\.weight first"),
        ("1.mlp.experts.gate_up_proj", r"lacks 2 of .*, blk\.1\.ffn_gate_exps\.weight first"),
    ],
)
def test_a_missing_tensor_is_named(ending: str, words: str, tmp_path: Path) -> None:
    refused(write_mistral4(tmp_path / "m", change=without(ending)), CorruptFile, words)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = write_large3(tmp_path / "m", n_layer=2, change=without("layers.1.experts.5.w2.weight"))
    refused(folder, CorruptFile, "lacks ffn_down of expert 5 in layer 1")


def test_a_bias_of_latent_attention_is_refused(tmp_path: Path) -> None:
    def biased(arrays: Arrays) -> Arrays:
        return {**arrays, "model.language_model.layers.0.self_attn.q_a_proj.bias": np.ones(24, np.float32)}

    refused(write_mistral4(tmp_path / "m", change=biased), Unsupported, "q_a_proj.bias' is not part of")


def test_what_sees_is_only_left_out_of_a_model_that_sees(tmp_path: Path) -> None:
    def seeing(arrays: Arrays) -> Arrays:
        return {**arrays, "vision_tower.patch_conv.weight": np.ones((8, 3), np.float32)}

    folder = write_mistral3(tmp_path / "m", images=False, change=seeing)
    refused(folder, Unsupported, "'vision_tower.patch_conv.weight' is not part of")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model_type": "gemma3"}, Unsupported, "a text model of the type 'gemma3'; supported are mistral"),
        ({"rope_interleave": False}, Unsupported, "rope_interleave = false, which llama.cpp does not compute"),
        ({"rope_parameters": {**YARN, "mscale": 0.7}}, Unsupported, "mscale = 0.7, but llama.cpp only"),
        ({"rope_parameters": {"llama_4_scaling_beta": 0.1}}, Unsupported, "scales attention by position without YaRN"),
        ({"num_key_value_heads": 2}, CorruptFile, "2 key-value heads, but latent attention has one for each of the 4"),
        ({"q_lora_rank": 0}, CorruptFile, "q_lora_rank = 0; it must be"),
        ({"qk_rope_head_dim": 7}, CorruptFile, "the odd head size 7"),
        ({"n_routed_experts": 0}, CorruptFile, "n_routed_experts = 0; it must be"),
        ({"num_experts_per_tok": 9}, CorruptFile, "num_experts_per_tok = 9; it must be a number from 1 to 8"),
        ({"first_k_dense_replace": -1}, CorruptFile, "first_k_dense_replace = -1; it must be"),
        ({"n_group": 2, "topk_group": 3}, CorruptFile, "topk_group = 3; it must be a number from 1 to 2"),
        ({"kv_lora_rank": 33}, CorruptFile, r"has the shape \[32\], but the configuration needs \[33\]"),
    ],
)  # fmt: skip
def test_a_text_configuration_that_cannot_be_is_refused(
    changes: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    folder = write_mistral4(tmp_path / "m", n_layer=1)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= changes
    write_json(folder / "config.json", config)
    refused(folder, kind, words)


MOE = {"num_experts": 8, "num_experts_per_tok": 3, "expert_hidden_dim": 48, "num_shared_experts": 1}
OTHER_START = {"llama_4_scaling": {"original_max_position_embeddings": 99, "beta": 0.1}}


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"moe": None}, Unsupported, "latent attention without experts"),
        ({"yarn": None, "llama_4_scaling": None}, Unsupported, "latent attention without YaRN"),
        (OTHER_START, Unsupported, "scales attention from 99 positions on and has YaRN from 16"),
        ({"moe": {**MOE, "route_every_n": 2}}, Unsupported, "experts in one of 2 layers only"),
        ({"moe": {**MOE, "num_shared_experts": None}}, CorruptFile, "no num_shared_experts"),
        ({"q_lora_rank": None}, CorruptFile, "no q_lora_rank"),
        ({"yarn": {**NATIVE_YARN["yarn"], "factor": "x"}}, CorruptFile, "factor = 'x'; it must be"),
    ],
)
def test_params_with_latent_attention_that_cannot_be_are_refused(
    changes: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    refused(write_large3(tmp_path / "m", n_layer=1, **changes), kind, words)
