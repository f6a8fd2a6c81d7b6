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
from tests.support.broken_checkpoints import SMALL, refused
from tests.support.checkpoints import (
    bf16_values,
    pack_safetensors,
    write_checkpoint,
    write_json,
    write_native,
    write_shards,
)


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
    refused(folder, CorruptFile, "not a plain .safetensors name")


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


@pytest.mark.slow
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
