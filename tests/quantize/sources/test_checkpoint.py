"""Checkpoint folders: the layouts that are read, and every broken or hostile folder refused in one sentence."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.sources.checkpoint import INDEX, Layout, open_checkpoint
from quantize.sources.model_source import model_source
from tests.support.checkpoints import (
    bf16_values,
    pack_safetensors,
    write_checkpoint,
    write_json,
    write_native,
    write_shards,
)

SMALL: dict[str, Any] = {"tokenizer": None, "n_layer": 1, "n_embd": 16, "n_ff": 32, "n_expert": 2}


def refused(folder: Path, kind: type[QuantizeError], words: str) -> None:
    """Open and map a folder; the error must be of `kind`, one sentence, and say `words`."""
    with pytest.raises(kind, match=words) as raised:
        model_source(open_checkpoint(folder))
    message = str(raised.value)
    assert type(raised.value) is kind and message.endswith(".") and "\n" not in message


def change_config(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **changes})
    return folder


@pytest.mark.parametrize("n_shards", [1, 3])
def test_a_hugging_face_folder_gives_every_tensor(n_shards: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_checkpoint(tmp_path / "m", n_shards=n_shards, **SMALL))
    assert checkpoint.layout is Layout.HUGGING_FACE
    assert len(checkpoint.files) == n_shards
    assert checkpoint.tensors["lm_head.weight"].shape == (96, 16)
    first = bf16_values((96, 16), 1000)
    np.testing.assert_array_equal(checkpoint.tensors["model.embed_tokens.weight"].read(3, 7), first[3:7])


def test_shards_without_an_index_are_found(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    names = set(open_checkpoint(folder).tensors)
    (folder / INDEX).unlink()
    assert set(open_checkpoint(folder).tensors) == names


@pytest.mark.parametrize("n_shards", [1, 2])
def test_a_mistral_folder_is_read(n_shards: int, tmp_path: Path) -> None:
    folder = write_native(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, n_shards=n_shards)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.layout is Layout.MISTRAL and len(checkpoint.files) == n_shards
    assert checkpoint.tensors["layers.0.attention.wq.weight"].shape == (16, 16)


def test_a_folder_with_both_layouts_is_read_as_hugging_face(tmp_path: Path) -> None:
    write_native(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32)
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    assert open_checkpoint(folder).layout is Layout.HUGGING_FACE
    (folder / "model.safetensors").unlink()
    assert open_checkpoint(folder).layout is Layout.MISTRAL


def test_the_fingerprint_follows_every_file(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **{**SMALL, "tokenizer": "v1"})
    prints = {open_checkpoint(folder).fingerprint}
    assert open_checkpoint(folder).fingerprint in prints
    for i, name in enumerate(
        ("model.safetensors", "config.json", "tokenizer.model", "tokenizer_config.json")
    ):
        os.utime(folder / name, (i, i))
        prints.add(open_checkpoint(folder).fingerprint)
    assert len(prints) == 5


def test_code_of_a_repository_is_never_run(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "m",
        **{**SMALL, "tokenizer": "v1"},
        config={"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}},
    )
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    write_json(folder / "tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}})
    assert model_source(open_checkpoint(folder)).tensors


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "weights.ckpt"])
def test_a_folder_of_pickles_is_refused_by_name(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"architectures": ["MistralForCausalLM"]})
    (tmp_path / name).write_bytes(b"\x80\x04.")
    refused(tmp_path, Unsupported, f"{name}, a pickle file.*safetensors version")


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", Unsupported, "is not a folder")
    refused(tmp_path, Unsupported, "no config.json and no params.json")
    write_json(tmp_path / "config.json", {"architectures": ["MistralForCausalLM"]})
    refused(tmp_path, Unsupported, "no safetensors files")


@pytest.mark.parametrize(
    "name",
    [
        *("../other.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x.safetensors", "C:x.safetensors"),
        *("x\x1b[2J.safetensors", ".hidden.safetensors", "model.bin", "", 7, None, ["x"]),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(name: Any, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = name
    write_json(folder / INDEX, index)
    refused(folder, CorruptFile, "not a plain .safetensors name; download the model from another source")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=3, **SMALL)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, CorruptFile, "lacks 'model-00002-of-00003.safetensors' of its 3 weight files")


def test_an_index_and_shards_that_disagree_are_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    index = json.loads((folder / INDEX).read_text())
    write_json(
        folder / INDEX,
        {"weight_map": {**index["weight_map"], "extra.weight": "model-00001-of-00002.safetensors"}},
    )
    refused(folder, CorruptFile, "lacks 'extra.weight', which model.safetensors.index.json lists")
    del index["weight_map"]["lm_head.weight"]
    write_json(folder / INDEX, index)
    refused(folder, CorruptFile, "does not list 'lm_head.weight'")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}', "[" * 100_000])
def test_a_broken_index_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    (folder / INDEX).write_text(text)
    refused(folder, CorruptFile, "download it again")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    pack_safetensors(folder / "model-extra.safetensors", {"lm_head.weight": bf16_values((96, 16), 9)})
    refused(
        folder, CorruptFile, "'lm_head.weight' exists twice, in model-extra.safetensors and model.safetensors"
    )


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    drop(folder, "model.layers.0.block_sparse_moe.experts.1.w2.weight")
    refused(folder, CorruptFile, "lacks ffn_down of expert 1 in layer 0")


@pytest.mark.parametrize(
    ("name", "gguf_name"),
    [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.layers.0.self_attn.k_proj.weight", "blk.0.attn_k.weight"),
        ("model.layers.0.block_sparse_moe.gate.weight", "blk.0.ffn_gate_inp.weight"),
    ],
)
def test_a_missing_tensor_is_named(name: str, gguf_name: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    drop(folder, name)
    refused(folder, CorruptFile, f"lacks 1 of the model's tensors, {gguf_name} first")


def test_all_experts_of_a_layer_missing_is_noticed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    drop(
        folder,
        *(f"model.layers.0.block_sparse_moe.experts.{e}.w{w}.weight" for e in (0, 1) for w in (1, 2, 3)),
    )
    refused(folder, CorruptFile, "lacks 3 of the model's tensors, blk.0.ffn_gate_exps.weight first")


def test_tied_embeddings_need_no_output(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "m", **{**SMALL, "tokenizer": "v1"}, config={"tie_word_embeddings": True}
    )
    drop(folder, "lm_head.weight")
    names = [tensor.name for tensor in model_source(open_checkpoint(folder)).tensors]
    assert "output.weight" not in names and "token_embd.weight" in names


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lm_head.weight", (95, 16)),
        ("model.norm.weight", (16, 1)),
        ("model.layers.0.self_attn.k_proj.weight", (16, 16)),
        ("model.layers.0.block_sparse_moe.experts.0.w2.weight", (32, 16)),
        ("model.layers.0.block_sparse_moe.gate.weight", (3, 16)),
    ],
)
def test_a_wrong_shape_is_named(name: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    replace_tensor(folder, name, shape)
    refused(folder, CorruptFile, rf"{name} has the shape \[{', '.join(map(str, shape))}\], but")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("model.layers.0.self_attn.rotary.weight", Unsupported, "is not part of a Mixtral"),
        ("vision_tower.patch.weight", Unsupported, "is not part of a Mixtral"),
        ("model.layers.00.input_layernorm.weight", Unsupported, "is not part of a Mixtral"),
        ("model.layers.٠.input_layernorm.weight", Unsupported, "is not part of a Mixtral"),
        ("layers.0.attention_norm.weight", CorruptFile, "same tensor under two names"),
        ("model.layers.0.mlp.gate_proj.weight", Unsupported, "is not part of a Mixtral"),
        ("model.layers.7.input_layernorm.weight", CorruptFile, "of layer 7, but the model has 1"),
        (
            "model.layers.0.block_sparse_moe.experts.2.w1.weight",
            CorruptFile,
            "of expert 2, but the model has 2",
        ),
    ],
)
def test_a_tensor_too_many_is_named(name: str, kind: type[QuantizeError], words: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    replace_tensor(folder, name, (16,))
    refused(folder, kind, words)


def test_buffers_that_old_checkpoints_carry_are_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **{**SMALL, "tokenizer": "v1"})
    replace_tensor(folder, "model.layers.0.self_attn.rotary_emb.inv_freq", (2,))
    assert not [t for t in model_source(open_checkpoint(folder)).tensors if "freq" in t.name]


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


def test_whole_weights_win_over_an_index_that_was_left_behind(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    index = (folder / INDEX).read_text()
    for shard in folder.glob("model-*"):
        shard.unlink()
    write_checkpoint(folder, **SMALL)
    (folder / INDEX).write_text(index)
    checkpoint = open_checkpoint(folder)
    assert [path.name for path in checkpoint.files] == ["model.safetensors"]
    (folder / INDEX).write_text("{")  # and one that cannot be read
    assert open_checkpoint(folder).tensors.keys() == checkpoint.tensors.keys()


def test_mistrals_own_weights_win_over_an_index_that_was_left_behind(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=2, **SMALL)
    for shard in folder.glob("model-*"):
        shard.unlink()
    write_native(folder, n_layer=1, n_embd=16, n_ff=32)
    assert open_checkpoint(folder).layout is Layout.MISTRAL


def test_a_part_that_is_missing_is_known_by_the_names_of_the_others(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_shards=3, **SMALL)
    (folder / INDEX).unlink()
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, CorruptFile, "lacks 'model-00002-of-00003.safetensors', shard 2 of 3")
    shutil.move(folder / "model-00001-of-00003.safetensors", folder / "model-00001-of-99999.safetensors")
    refused(folder, CorruptFile, "lacks 'model-00001-of-00003.safetensors', shard 1 of 3|shard 2 of 99999")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 4221000000\n"


@pytest.mark.parametrize("layout", [write_checkpoint, write_native])
@pytest.mark.parametrize(
    "name",
    ["model.safetensors", "consolidated.safetensors", "config.json", "params.json", "tokenizer.model", "tokenizer.model.v3", "tokenizer_config.json", "tokenizer.json", "tekken.json", "chat_template.jinja", "generation_config.json", "added_tokens.json", INDEX],
)  # fmt: skip
def test_a_git_lfs_pointer_is_named_as_one(tmp_path: Path, layout: Callable[..., Path], name: str) -> None:
    folder = layout(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, tokenizer="v3")
    is_needed = (folder / name).is_file()
    (folder / name).write_text(POINTER)
    try:
        model_source(open_checkpoint(folder))
    except CorruptFile as error:
        assert f"{name} is a Git LFS pointer" in str(error)
        assert "git lfs pull" in str(error)
    else:  # a file that this layout does not read
        assert not is_needed


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "tokenizer.json", "added_tokens.json", INDEX]
)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-le"), "UTF-16"),
        (b'{"a": "\xe9"}', "not UTF-8 text"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "'a' twice, with different values"),
        (b'{"a": "\\ud800"}', "a lone surrogate"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"", "not JSON"),
        (b'{"a": 1}' + b"\0" * 10, "not JSON"),
        (b"[" + b"0," * (1 << 23) + b"0]", "values; the limit is"),
    ],
)
def test_json_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    folder = write_checkpoint(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, tokenizer="v3", n_shards=2)
    (folder / name).write_bytes(content)
    with pytest.raises(CorruptFile, match=words) as caught:
        model_source(open_checkpoint(folder))
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_a_byte_order_mark_is_no_harm(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    config = (folder / "config.json").read_bytes()
    (folder / "config.json").write_bytes(b"\xef\xbb\xbf" + config)
    assert open_checkpoint(folder).hparams.n_embd == 16


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.model"])
def test_a_pipe_in_a_folder_is_never_waited_for(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, tokenizer="v3")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(QuantizeError):
        model_source(open_checkpoint(folder))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"architectures": ["Mixtral'])
def test_a_config_that_is_no_json_object_is_refused(text: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **SMALL)
    (folder / "config.json").write_text(text)
    refused(folder, CorruptFile, "config.json .*download it again")


@pytest.mark.parametrize(
    ("params", "kind", "words"),
    [
        (
            {"quantization": {"qformat_weight": "fp8_e4m3"}},
            Unsupported,
            "'quantization', which mixcli does not support",
        ),
        ({"vision_encoder": {"a": 1}}, Unsupported, "'vision_encoder'"),
        ({"moe": {"num_experts": 0, "num_experts_per_tok": 2}}, CorruptFile, "num_experts = 0; it must be"),
        ({"n_layers": None}, CorruptFile, "no n_layers; it must be"),
    ],
)
def test_params_that_cannot_be_are_refused(
    params: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    folder = write_native(tmp_path / "m", n_layer=1, n_embd=16, n_ff=32, params=params)
    refused(folder, kind, words)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    refused(
        write_checkpoint(tmp_path / "m", **SMALL),
        Unsupported,
        "no tokenizer.model, tokenizer.json or tekken.json",
    )


def drop(folder: Path, *names: str) -> None:
    """Write the weights again without some tensors."""
    tensors = open_checkpoint(folder).tensors
    kept = {name: t.read(0, t.n_rows).reshape(t.shape) for name, t in tensors.items() if name not in names}
    assert len(kept) == len(tensors) - len(names)
    write_shards(folder, kept)


def replace_tensor(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    """Write the weights again with one tensor of another shape, or one more."""
    tensors = open_checkpoint(folder).tensors
    arrays = {other: t.read(0, t.n_rows).reshape(t.shape) for other, t in tensors.items()}
    write_shards(folder, {**arrays, name: bf16_values(shape, 77)})
