"""Hyperparameters of a folder: what means none or the default, and what cannot be."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source
from tests.support.broken_checkpoints import SMALL, refused
from tests.support.checkpoints import (
    write_checkpoint,
    write_json,
    write_native,
)


def change_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **changes})
    return folder


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        (
            {"architectures": ["Qwen2ForCausalLM"]},
            Unsupported,
            "Qwen2ForCausalLM model, which mixcli does not support",
        ),
        ({"architectures": []}, Unsupported, "has no architecture"),
        ({"architectures": {"a": 1}}, Unsupported, "has no architecture"),
        ({"quantization_config": {"quant_method": "gptq"}}, Unsupported, "already quantized \\(gptq\\)"),
        ({"num_hidden_layers": -1}, CorruptFile, "num_hidden_layers = -1; it must be a number from 1 to 512"),
        ({"num_hidden_layers": 10**9}, CorruptFile, "num_hidden_layers = 1000000000; it must be"),
        ({"num_attention_heads": "four"}, CorruptFile, "num_attention_heads = 'four'; it must be"),
        (
            {"num_attention_heads": 3},
            CorruptFile,
            "has a hidden size of 16, which is not a multiple of the 3 heads",
        ),
        (
            {"num_key_value_heads": 3},
            CorruptFile,
            "4 heads, which is not a multiple of the 3 key-value heads",
        ),
        ({"hidden_size": True}, CorruptFile, "hidden_size = true; it must be"),
        ({"rms_norm_eps": float("nan")}, CorruptFile, "rms_norm_eps = NaN; it must be"),
        ({"rope_theta": "big"}, CorruptFile, "rope_theta = 'big'; it must be"),
        ({"num_local_experts": 100000}, CorruptFile, "num_local_experts = 100000; it must be"),
        ({"num_experts_per_tok": 3}, CorruptFile, "num_experts_per_tok = 3; it must be a number from 1 to 2"),
        ({"head_dim": 3}, CorruptFile, "the odd head size 3"),
        (
            {"rope_scaling": {"rope_type": "dynamic", "factor": 2}},
            Unsupported,
            "has RoPE scaling 'dynamic'",
        ),
        ({"rope_scaling": {"type": "linear"}}, CorruptFile, "no factor; it must be"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 1e12}},
            CorruptFile,
            "original context of 1e\\+12 positions",
        ),
        (
            {
                "rope_scaling": {
                    "type": "yarn",
                    "factor": 2,
                    "original_max_position_embeddings": 64,
                    "attention_factor": 0,
                }
            },
            CorruptFile,
            "an attention factor of 0; it must be above 0",
        ),
        ({"hidden_act": "gelu"}, Unsupported, "hidden_act = 'gelu'"),
        (
            {"tie_word_embeddings": "true"},
            CorruptFile,
            "tie_word_embeddings = 'true'; it must be true or false",
        ),
        ({"quantization_config": "fp8"}, Unsupported, "already quantized \\(fp8\\)"),
        ({"rope_scaling": [1]}, CorruptFile, "rope_scaling = \\[1\\]; it must be an object"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(
    changes: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    refused(change_config(write_checkpoint(tmp_path / "m", **SMALL), **changes), kind, words)


# What means "none" or "the default", and the number that transformers takes then
DEFAULTS: dict[str, tuple[dict[str, Any], str, object]] = {
    **{f"rope_scaling {value!r}": ({"rope_scaling": value}, "rope_scaling", None) for value in (None, False, "", "none", {}, [])},
    "a default kind": ({"rope_scaling": {"rope_type": "default"}}, "rope_scaling", None),
    "no kind": ({"rope_scaling": {"rope_type": None}}, "rope_scaling", None),
    "a kind of none": ({"rope_scaling": {"type": "none"}}, "rope_scaling", None),
    "no theta": ({"rope_theta": None}, "rope_base", 1e6),
    "no theta among parameters": ({"rope_parameters": {"rope_type": "default", "rope_theta": None}}, "rope_base", 1e6),
    **{f"quantization {value!r}": ({"quantization_config": value}, "n_embd", 16) for value in (None, False, {}, "none")},
    **{f"head_dim {value!r}": ({"head_dim": value}, "head_size", 4) for value in (None, 0, -1, False)},
    **{f"kv heads {value!r}": ({"num_key_value_heads": value}, "n_head_kv", 4) for value in (None, 0, -1)},
    **{f"tied {value!r}": ({"tie_word_embeddings": value}, "tied_embeddings", False) for value in (None, False)},
    "no context": ({"max_position_embeddings": None}, "n_ctx", 131072),
    "no epsilon": ({"rms_norm_eps": None}, "rms_eps", 1e-5),
    "no window": ({"sliding_window": None, "torch_dtype": None, "hidden_act": None, "pad_token_id": None}, "n_embd", 16),
    "another name of silu": ({"hidden_act": "swish"}, "n_embd", 16),
}  # fmt: skip


@pytest.mark.parametrize("case", DEFAULTS)
def test_what_means_none_or_the_default_is_taken_so(case: str, tmp_path: Path) -> None:
    changes, field, value = DEFAULTS[case]
    folder = change_config(write_checkpoint(tmp_path / "m", **SMALL), **changes)
    assert getattr(open_checkpoint(folder).hparams, field) == value


def test_the_default_of_a_count_that_is_left_out_is_the_model_types(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    config = json.loads((folder / "config.json").read_text())
    del config["num_key_value_heads"]
    write_json(folder / "config.json", {**config, "num_attention_heads": 16, "head_dim": 4})
    assert open_checkpoint(folder).hparams.n_head_kv == 8


@pytest.mark.parametrize("value", [None, 0, -1])
def test_nulls_of_a_mistral_folder(value: object, tmp_path: Path) -> None:
    params = {
        "vocab_size": value,
        "n_kv_heads": value,
        "head_dim": value,
        "moe": None,
        "yarn": None,
        "quantization": None,
    }
    folder = write_native(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, params=params)
    found = open_checkpoint(folder).hparams
    assert (found.n_vocab, found.n_head_kv, found.head_size, found.n_expert) == (None, 4, 4, 0)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"architectures": ["Mixtral'])
def test_a_config_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    (folder / "config.json").write_text(text)
    refused(folder, CorruptFile, "config.json .*download it again")


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        ({"mamba": {"a": 1}}, Unsupported, "'mamba', which mixcli does not support"),
        ({"moe": {"num_experts": 0, "num_experts_per_tok": 2}}, CorruptFile, "num_experts = 0; it must be"),
        ({"n_layers": None}, CorruptFile, "no n_layers; it must be"),
    ],
)
def test_params_that_cannot_be_are_refused(
    params: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    folder = write_native(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, params=params)
    refused(folder, kind, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sliding_window": 4096, "max_position_embeddings": 32768}, "look back to 4,096 tokens, but in llama.cpp they see all 32,768"),
        ({"sliding_window": 4096, "max_position_embeddings": 4096}, None),
        ({"sliding_window": None, "max_position_embeddings": 32768}, None),
        ({"sliding_window": 4096, "use_sliding_window": False, "max_position_embeddings": 32768}, None),
    ],
)  # fmt: skip
def test_a_window_that_llama_cpp_does_not_compute_is_noted(
    tmp_path: Path, changes: dict[str, Any], words: str | None
) -> None:
    """Mistral 7B v0.1 has one."""
    folder = write_checkpoint(
        tmp_path / "m", n_layer=1, n_embd=32, n_ff=48, architecture="MistralForCausalLM"
    )
    notes = model_source(open_checkpoint(change_config(folder, **changes))).notes
    assert [words in note for note in notes if "look back" in note] == ([True] if words else [])


def test_a_window_of_some_layers_is_noted_too(tmp_path: Path) -> None:
    folder = write_native(tmp_path / "m")
    params = json.loads((folder / "params.json").read_text())
    write_json(folder / "params.json", {**params, "_sliding_window": [None, 2048, 2048, 4096]})
    assert any("look back to 2,048 tokens" in note for note in model_source(open_checkpoint(folder)).notes)
