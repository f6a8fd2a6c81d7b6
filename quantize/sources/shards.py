"""Find and check the files of a split GGUF model, local or remote.

llama.cpp cuts a model into files named <stem>-00001-of-00003.gguf; each header has split.no (from 0), split.count and
split.tensors.count, and the first one has the model's metadata. Names say where the others lie, headers say whether they belong together.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from quantize.errors import CorruptFile
from quantize.sources.gguf_header import GgufHeader, read_header
from quantize.sources.shard_names import MAX_SHARDS, shard_paths
from quantize.wording import counted, shown


@dataclass(frozen=True)
class Shards:
    """The files of one whole model in order, the header of each, and one header for all.

    `whole` has the metadata of the first file, and the tensors and bytes of all.
    """

    paths: tuple[Path, ...]
    headers: tuple[GgufHeader, ...]
    whole: GgufHeader


def open_shards(path: Path) -> Shards:
    """Read the headers of a model's files, whichever of them `path` is.

    Raises CorruptFile for shards that are missing or do not belong together, and what `read_header` raises.
    """
    named = read_header(path)
    count = _split_count(named, str(path))
    if count < 2:
        return Shards((path,), (named,), named)
    paths = shard_paths(path)
    if len(paths) != count:
        raise CorruptFile(
            f"{path} is one of {count} files; to find the others, llama.cpp needs a name "
            f"that ends in -{_number(named):05d}-of-{count:05d}.gguf: rename it"
        )
    for number, shard in enumerate(paths, 1):
        if not os.path.exists(shard):  # noqa: PTH110
            raise CorruptFile(
                f"{shard} is missing: it is shard {number} of {count}, and all shards must be in one folder; download it"
            )
    headers = tuple(named if shard == path else read_header(shard) for shard in paths)
    return Shards(paths, headers, whole_header([*zip(map(str, paths), headers, strict=True)]))


def whole_header(files: Sequence[tuple[str, GgufHeader]]) -> GgufHeader:
    """Return one header for the files of a model, given as (name, header) in order; CorruptFile names one that does not belong to it."""
    _check(files)
    headers = [header for _, header in files]
    if len(headers) == 1:
        return headers[0]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    return replace(headers[0], tensors=tensors, file_size=sum(header.file_size for header in headers))


def _check(files: Sequence[tuple[str, GgufHeader]]) -> None:
    first_name, first = files[0]
    count = _split_count(first, first_name)
    if max(count, 1) != len(files):
        raise CorruptFile(
            f"{first_name} declares {counted(max(count, 1), 'shard')}, but {len(files)} are present; download all of them"
        )
    if count < 2:
        return
    names: dict[str, str] = {}
    for number, (name, header) in enumerate(files):
        if (
            _split_count(header, name) != count
            or header.get("split.no") != number
            or isinstance(header.get("split.no"), bool)
        ):
            raise CorruptFile(
                f"{name} does not belong to {first_name}: it is not shard {number + 1} of {count} by its header; download all shards from one repository"
            )
        for key in ("general.architecture", "general.name"):
            if key in header.metadata and header.get(key) != first.get(key):
                raise CorruptFile(
                    f"{name} and {first_name} belong to different models: {key} is {shown(header.get(key))} "
                    f"and not {shown(first.get(key))}; download all shards from one repository"
                )
        for tensor in header.tensors:
            if tensor.name in names:
                raise CorruptFile(
                    f"{name} and {names[tensor.name]} both have the tensor {tensor.name!a}; they belong to different models"
                )
            names[tensor.name] = name
    expected = first.get("split.tensors.count", len(names))
    if expected != len(names):
        raise CorruptFile(
            f"{first_name} and its other shards have {counted(len(names), 'tensor')} but should hold {shown(expected)}; they belong to different models"
        )


def _split_count(header: GgufHeader, name: str) -> int:
    """Return how many files a header says its model has, 0 where it says nothing; CorruptFile for an impossible number."""
    count = header.get("split.count", 0)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_SHARDS:
        raise CorruptFile(
            f"{name} declares {shown(count)} shards, but the limit is {MAX_SHARDS:,}; the file is damaged"
        )
    return count


def _number(header: GgufHeader) -> int:
    number = header.get("split.no", 0)
    return number + 1 if isinstance(number, int) and 0 <= number < MAX_SHARDS else 1


__all__ = [
    "Shards",
    "open_shards",
    "whole_header",
]
