"""Open a checkpoint folder: its configuration and its tensors by name; reads headers only.

Two layouts are known: Hugging Face (config.json, model*.safetensors) and Mistral's own (params.json,
consolidated*.safetensors). Only safetensors, JSON and tokenizer files are ever opened; nothing of a checkpoint is executed.
"""

import fnmatch
import hashlib
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from quantize.errors import CorruptFile, MalformedFile, Unsupported
from quantize.source import TensorSource
from quantize.sources.byte_reader import ByteReader
from quantize.sources.config_hparams import hparams_from_config, model_type
from quantize.sources.folder import is_plain_name, read_json_object
from quantize.sources.fp8 import weight_sources
from quantize.sources.hparams import Hparams
from quantize.sources.input_file import fingerprint_of, opened, pread_exactly, states_of
from quantize.sources.params_hparams import hparams_from_params
from quantize.sources.quantization import scale_block
from quantize.sources.safetensors import StoredTensor, read_header

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "generation_config.json",
    "README.md",
)


class Layout(Enum):
    """Whose names and conventions a folder follows."""

    HUGGING_FACE = "config.json"
    MISTRAL = "params.json"


@dataclass(frozen=True)
class Upcycling:
    """How a view of a dense checkpoint became a mixture of experts."""

    n_experts: int
    n_used: int
    seed: int


@dataclass(frozen=True)
class Checkpoint:
    """A model as its folder gives it.

    `tensors` are in the order of llama.cpp's converter: shard by shard, by name within a shard. `sources` are all files that a conversion
    reads, the weights, the configuration and what belongs to the tokenizer, each with its state before anything was read from it.
    """

    folder: Path
    layout: Layout
    config: Mapping[str, Any]
    tensors: Mapping[str, TensorSource]
    files: tuple[Path, ...]
    sources: tuple[tuple[Path, object], ...]
    upcycling: Upcycling | None = None

    @property
    def hparams(self) -> Hparams:
        """Return the checked numbers of the configuration; raises CorruptFile or Unsupported."""
        read = hparams_from_config if self.layout is Layout.HUGGING_FACE else hparams_from_params
        return read(self.config, f"{self.folder.name}/{self.layout.value}")

    @property
    def fingerprint(self) -> str:
        """Changes when any file's name, size or time, or an option, changes."""
        digest = hashlib.sha256(repr(self.upcycling).encode())
        for path, _ in self.sources:
            digest.update(fingerprint_of(path))
        return digest.hexdigest()


def open_checkpoint(folder: Path, elsewhere: Mapping[str, ByteReader] | None = None) -> Checkpoint:
    """Open a checkpoint folder.

    `elsewhere` are weight files by name that are not in the folder yet, such as those of a remote repository: their headers are
    read there; a row can be read only after its file was downloaded. Raises Unsupported for a folder without safetensors or of another architecture, CorruptFile for a broken header, a missing
    shard, a tensor that comes twice, or an index that does not tell the truth.
    """
    if not folder.is_dir():
        raise Unsupported(
            f"{folder} is not a folder; pass the folder with config.json and the safetensors files"
        )
    elsewhere = elsewhere or {}
    found = _find(folder, elsewhere)
    layout, shards = found.layout, found.shards
    small = [folder / name for name in (layout.value, *TOKENIZER_FILES)]
    small += sorted(folder.glob("tokenizer.model.v*"))
    sources = states_of(path for path in (*shards, *small) if path.is_file())
    config = read_json_object(folder / layout.value)
    if layout is Layout.HUGGING_FACE:
        model_type(config, f"{folder.name}/config.json")
    block = scale_block(config, f"{folder.name}/{layout.value}")
    stored: dict[str, StoredTensor] = {}
    for shard in shards:
        for name, tensor in read_header(shard, elsewhere.get(shard.name)).items():
            if name in stored:
                raise CorruptFile(
                    f"tensor {name!r} exists twice, in {stored[name].path.name} and {shard.name}; "
                    "remove the wrong file"
                )
            stored[name] = tensor
    if found.index:
        _check_index(found.index, stored)
    tensors = weight_sources(stored, block, lambda tensor: _whole(tensor, elsewhere))
    return Checkpoint(folder, layout, config, tensors, shards, sources)


def _whole(tensor: StoredTensor, elsewhere: Mapping[str, ByteReader]) -> bytes:
    """Read all bytes of a small tensor, from its remote file where the local one is not there yet or not any more."""
    if tensor.path.name in elsewhere and not tensor.path.is_file():
        return elsewhere[tensor.path.name].read_at(tensor.offset, tensor.n_bytes)
    with opened(tensor.path) as fd:
        data = pread_exactly(fd, tensor.offset, tensor.n_bytes)
    if len(data) < tensor.n_bytes:
        raise CorruptFile(f"{tensor.path.name} became shorter during the read; download it again")
    return data


@dataclass(frozen=True)
class _Found:
    """Where a folder's weights lie; `index` is the one that names them, None where none is used."""

    layout: Layout
    shards: tuple[Path, ...]
    index: Path | None = None


def _find(folder: Path, elsewhere: Collection[str]) -> _Found:
    """Choose the weights of a folder: complete files win over an index with missing ones, such as that of an interrupted download."""
    has_config, has_params = ((folder / layout.value).is_file() for layout in Layout)
    index, incomplete = folder / INDEX, None
    if has_config and index.is_file():
        whole = _matching(folder, WHOLE, elsewhere)
        try:
            return _Found(Layout.HUGGING_FACE, tuple(_indexed(index, elsewhere)), index)
        except CorruptFile as error:
            incomplete = error
        if whole:
            return _Found(Layout.HUGGING_FACE, tuple(whole))
    elif has_config and (shards := _matching(folder, "model*.safetensors", elsewhere)):
        return _Found(Layout.HUGGING_FACE, tuple(_all_parts(shards)))
    if has_params and (shards := _matching(folder, "consolidated*.safetensors", elsewhere)):
        return _Found(Layout.MISTRAL, tuple(_all_parts(shards)))
    if incomplete:
        raise incomplete
    if pickles := sorted(path.name for pattern in PICKLES for path in folder.glob(pattern)):
        raise Unsupported(
            f"{folder.name} has its weights in {pickles[0]}, a pickle file, which can run code when opened; "
            "download the safetensors version"
        )
    if not has_config and not has_params:
        raise Unsupported(f"{folder.name} has no config.json and no params.json; it is not a model folder")
    raise Unsupported(f"{folder.name} has no safetensors files; download the model's weights")


def _all_parts(shards: list[Path]) -> list[Path]:
    """Refuse a folder whose shards say by their names that others are missing, or that they are of two models."""
    places = {path.name: match for path in shards if (match := _PART.fullmatch(path.name))}
    for match in places.values():
        for number in range(1, min(int(match["count"]), len(places) + 1) + 1):
            name = f"{match['stem']}-{number:05d}-of-{match['count']}.safetensors"
            if name not in places:
                raise CorruptFile(
                    f"{shards[0].parent.name} lacks {name!r}, shard {number} of {int(match['count'])}; download it"
                )
    if places and len(places) < len(shards):
        whole = next(path.name for path in shards if path.name not in places)
        if whole == WHOLE:  # transformers and llama.cpp take the whole file too
            return [path for path in shards if path.name == WHOLE]
    return shards


def _matching(folder: Path, pattern: str, elsewhere: Collection[str]) -> list[Path]:
    return sorted({*folder.glob(pattern), *(folder / name for name in fnmatch.filter(elsewhere, pattern))})


def _indexed(index: Path, elsewhere: Collection[str]) -> list[Path]:
    names = sorted(set(map(str, _weight_map(index).values())))
    missing = [name for name in names if name not in elsewhere and not (index.parent / name).is_file()]
    if missing:
        raise CorruptFile(
            f"{index.parent.name} lacks {_listed(missing)} of its {len(names)} weight files; download what is missing"
        )
    return [index.parent / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise MalformedFile(f"{index.name} has no weight_map")
    for name in weight_map.values():
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise MalformedFile(f"{index.name} points to {name!r}, which is not a plain .safetensors name")
    return weight_map


def _check_index(index: Path, tensors: Mapping[str, StoredTensor]) -> None:
    named = _weight_map(index)
    if missing := sorted(named.keys() - tensors.keys()):
        raise MalformedFile(f"{named[missing[0]]} lacks {_listed(missing)}, which {index.name} lists")
    if extra := sorted(tensors.keys() - named.keys()):
        raise CorruptFile(
            f"{index.name} does not list {_listed(extra)}; the files belong to different models"
        )


def _listed(names: Iterable[str]) -> str:
    first, *rest = map(repr, names)
    return first if not rest else f"{first} and {len(rest)} more"
