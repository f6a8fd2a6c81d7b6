"""The `general.*` keys of a GGUF: name, license, base model, size label.

Names are taken apart by the gguf package, whose heuristics llama.cpp's converter uses too: model card first, then config.json, then
the folder's name.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from datetime import date
from math import prod
from pathlib import Path
from typing import Any

import gguf

from quantize.ggml_types import GGUFValueType
from quantize.source import TensorSource, Value, text, texts
from quantize.sources.checkpoint import Checkpoint


def general_metadata(
    checkpoint: Checkpoint, tensors: Iterable[TensorSource], architecture: str = "llama"
) -> dict[str, Value]:
    """Return the keys from general.architecture on, in the order of llama.cpp's converter.

    A model card that cannot be read costs its information and nothing else.
    """
    total, once, n_expert = _parameters(tensors)
    size = gguf.size_label(total, once, 0, n_expert)
    try:
        _check_sizes(checkpoint.folder)
        return _keys(_load(checkpoint.folder, total), checkpoint, size, architecture)
    except Exception:  # a model card is free text, and its parsers may raise anything
        return _keys(gguf.Metadata(), checkpoint, size, architecture)


MAX_CARD = 1 << 20  # bytes; YAML is parsed in Python, and slowly
MAX_TEXT = 1 << 10  # characters of one value


def _check_sizes(folder: Path) -> None:
    """Raise ValueError for a card that is not a small regular file; the gguf package reads it whole."""
    for name in ("README.md", "generation_config.json"):
        path = folder / name
        if path.exists() and (not path.is_file() or path.stat().st_size > MAX_CARD):
            raise ValueError(f"{name} is too large")


def _load(folder: Path, total: int) -> gguf.Metadata:
    metadata = gguf.Metadata.load(None, folder, None, total)
    penalty = gguf.Metadata.load_generation_config(folder).get("repetition_penalty")
    if metadata.sampling_penalty_repeat is None and penalty is not None:
        metadata.sampling_penalty_repeat = float(penalty)
    if repository := _repository(folder):  # a snapshot's folder is named by its commit, which is not a name
        card, config = gguf.Metadata.load_model_card(folder), gguf.Metadata.load_hf_parameters(folder)
        named = gguf.Metadata.apply_metadata_heuristic(gguf.Metadata(), card, config, Path(repository), total)
        sampling = {
            f.name: getattr(metadata, f.name) for f in fields(metadata) if f.name.startswith("sampling_")
        }
        metadata = replace(named, **sampling)
    return metadata


def _repository(folder: Path) -> str | None:
    """Return the repository's name where the folder is a snapshot in the Hugging Face cache (models--owner--name/snapshots/commit)."""
    snapshots, repository = folder.absolute().parent, folder.absolute().parent.parent.name
    if snapshots.name != "snapshots" or not repository.startswith("models--"):
        return None
    return repository.split("--")[-1]


def _keys(
    metadata: gguf.Metadata, checkpoint: Checkpoint, size_label: str, architecture: str
) -> dict[str, Value]:
    metadata.name = metadata.name or checkpoint.folder.absolute().name
    if upcycling := checkpoint.upcycling:
        dense = metadata.name
        metadata.name = f"{dense} upcycled to {upcycling.n_experts} experts"
        metadata.description = (
            f"{dense} as a mixture of {upcycling.n_experts} equal experts, {upcycling.n_used} used for each token "
            "(sparse upcycling, untrained): Mixtral's architecture, the dense model's answers."
        )
        metadata.base_models = [{"name": dense}]
        metadata.basename = metadata.finetune = metadata.version = metadata.size_label = None
    if metadata.size_label is None:
        metadata.size_label = size_label
    writer = gguf.GGUFWriter(path=None, arch=architecture)
    writer.add_type(gguf.GGUFType.MODEL)
    metadata.set_gguf_meta_model(writer)
    return {key: _value(entry) for key, entry in writer.kv_data[0].items()}


def _value(entry: Any) -> Value:
    """Take over one entry, holding a model card's free types to the one that the key has."""
    if entry.type == gguf.GGUFValueType.ARRAY:  # tags and languages
        return texts([_short(item) for item in entry.value])
    if entry.type == gguf.GGUFValueType.STRING:
        return text(_short(entry.value))
    number = float(entry.value) if entry.type == gguf.GGUFValueType.FLOAT32 else int(entry.value)
    if not -(1 << 31) <= number < 1 << 31:
        raise ValueError(f"{number} is not a number for a model card")
    return Value(GGUFValueType(entry.type), number)


def _short(value: Any) -> str:
    """Write a plain value as text; ValueError for lists in lists, which YAML's aliases make endless, and for whole essays."""
    if not isinstance(value, str | int | float | bool | date):
        raise ValueError(f"a {type(value).__name__} is not a value for a model card")
    written = str(value)
    written.encode()  # half of a surrogate pair is not text
    return written[:MAX_TEXT]


def _parameters(tensors: Iterable[TensorSource]) -> tuple[int, int, int]:
    """Count parameters: all, all with only one expert of each layer, and the number of experts (0: dense)."""
    total = once = n_expert = 0
    for tensor in tensors:
        size = prod(tensor.shape)
        total += size
        if "_exps." in tensor.name:
            n_expert = tensor.shape[0]
            size //= n_expert
        once += size
    return total, once, n_expert
