"""Parse GGUF file names: file type and shard number."""

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from quantize.sources.shard_names import ShardName, shard_name

_TYPE = re.compile(
    r"(?:^|[-._/])(?P<type>(?:I?Q\d(?:_[A-Z0-9]+)*)|BF16|F16|FP16|F32|FP32)(?=$|[-._/])", re.IGNORECASE
)
# the K- and i-quants that publishers make in more sizes than llama.cpp's quantizer has names, as Q4_K_XL
_SIZED = re.compile(r"(?:Q[2-8]_K|IQ[1-4])_(?:XXS|XS|S|M|L|XL|XXL)|Q4_0_\d_\d", re.IGNORECASE)
_NO_MODEL = re.compile(r"(?:^|[-._/])(?:mmproj|imatrix|draft|mtp)(?=$|[-._/])", re.IGNORECASE)
ENDING = ".gguf"
T = TypeVar("T")


def place_of(name: str) -> ShardName:
    """Read which shard of which model a file is by its name; a file that is whole is shard 1 of 1."""
    stem = name[: -len(ENDING)] if name.lower().endswith(ENDING) else name
    return shard_name(name) or ShardName(stem, 1, 1)


def file_type(name: str) -> str | None:
    """Read the file type out of a file's name, as "Q4_K_M"; None when it says none. The last one in the name counts."""
    found = _last_type(place_of(name).stem)
    return found["type"].upper().replace("FP", "F") if found else None


def is_published(file_type: str) -> bool:
    """Return whether a file type has the form of those that publishers add to llama.cpp's, as Q4_K_XL."""
    return _SIZED.fullmatch(file_type) is not None


def model_name(name: str) -> str:
    """Return a file's name without its ending, its shard number, and a file type at its end: what the model is called."""
    stem = place_of(name).stem
    found = _last_type(stem)
    without = stem[: found.start()] if found and found.end() == len(stem) else stem
    return without.rstrip("-._") or stem


def _last_type(stem: str) -> re.Match[str] | None:
    return max(_TYPE.finditer(stem), key=lambda match: match.start(), default=None)


def models(files: Iterable[T], name_of: Callable[[T], str]) -> list[tuple[T, ...]]:
    """Group GGUF files into models, each with its shards in order; incomplete ones, projectors and the like are left out."""
    groups: dict[tuple[str, int], dict[int, T]] = {}
    for file in files:
        name = name_of(file)
        if name.lower().endswith(".gguf") and not _NO_MODEL.search(name):
            place = place_of(name)
            groups.setdefault((place.stem, place.count), {})[place.number] = file
    return [
        tuple(shards[number] for number in range(1, count + 1))
        for (_, count), shards in groups.items()
        if len(shards) == count and shards.keys() == set(range(1, count + 1))
    ]
