"""Which files a split GGUF model has, by their names: <stem>-00001-of-00003.gguf. Opens none, so that a warm start may ask."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MAX_SHARDS = 1 << 12
_NAME = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_MAX_LINKS = 40  # as Linux follows


@dataclass(frozen=True)
class ShardName:
    """A shard's place by its file's name: number `number` of `count`, counted from 1, of the model that is called `stem`."""

    stem: str
    number: int
    count: int


def shard_name(name: str) -> ShardName | None:
    """Read the place of a shard from its file's name; None for a name that says nothing, or nothing possible."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    number, count = int(match["number"]), int(match["count"])
    return ShardName(match["stem"], number, count) if 1 <= number <= count <= MAX_SHARDS else None


def shard_paths(path: Path) -> tuple[Path, ...]:
    """Return all files of the model that a file belongs to by its name, the first shard first; they need not exist.

    A symlink under a free name is followed to a name that says its place; in a cache the shards lie beside the link, not beside the blob.
    """
    named: list[tuple[Path, ...]] = []
    at = path
    for _ in range(_MAX_LINKS):
        if place := shard_name(at.name):
            ending = at.name[-5:]  # .gguf as it is written there
            siblings = tuple(
                at.with_name(f"{place.stem}-{number:05d}-of-{place.count:05d}{ending}")
                for number in range(1, place.count + 1)
            )
            if all(os.path.exists(sibling) for sibling in siblings):  # noqa: PTH110  # never raises
                return siblings
            named.append(siblings)
        if not os.path.islink(at):  # noqa: PTH114
            break
        at = at.parent / os.readlink(at)  # noqa: PTH115
    return named[0] if named else (path,)


def first_shard(path: Path) -> Path:
    """Return the file that stands for a whole model, which llama.cpp must be given: the first shard, where it is there."""
    first = shard_paths(path)[0]
    return first if os.path.exists(first) else path  # noqa: PTH110


__all__ = ["MAX_SHARDS", "ShardName", "first_shard", "shard_name", "shard_paths"]
