"""Parse the buffer sizes of a load from llama.cpp's log, and compare them with the plan's ledger."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mixcli.system.measurements import MIB, Comparison, Expected

TOLERANCE = 0.02  # share of a device's bytes that plan and fact may differ by
# llama.cpp's log repeats what a file says, of any length: lines that are longer than its own are not looked at, and the name before
# the words is found by splitting, because a pattern that may begin anywhere takes quadratic time on a long word
LONGEST_LINE = 512  # characters
_CACHE = re.compile(r": size\s*=\s*(\d{1,12}\.\d{1,6}) MiB \(\s*\d+ cells,")
_LINE = re.compile(r" (model|KV|compute|output) buffer size\s*=\s*(\d{1,12}(?:\.\d{1,6})?) MiB")
_MAPPED = "_Mapped"
HOST = "host"


@dataclass(frozen=True)
class Buffers:
    """Bytes that one device gave: `weights` (None where they are only mapped from the file), `kv`, `compute` with the output."""

    weights: int | None
    kv: int
    compute: int


def buffers_in(log: Iterable[str], gpus: Iterable[str]) -> dict[str, Buffers]:
    """Sum the buffer lines of a load: by GPU (its buffer type's name), everything else under HOST.

    llama.cpp prints two digits of MiB. A file that is mapped shows the mapped range, which says nothing about memory that is taken.
    """
    known = set(gpus)
    sums: dict[str, dict[str, float]] = {name: {} for name in (*known, HOST)}
    mapped = set()
    for line in log:
        match = _LINE.search(line) if len(line) <= LONGEST_LINE else None
        before = line[: match.start()].split() if match else []
        if match is None or not before:
            continue
        buffer, kind, mib = before[-1], match[1], float(match[2])
        device = buffer.removesuffix(_MAPPED)
        device = device if device in known else HOST
        if buffer.endswith(_MAPPED):
            mapped.add(device)
        part = "compute" if kind == "output" else kind
        sums[device][part] = sums[device].get(part, 0.0) + mib * MIB
    return {
        device: Buffers(
            None if device in mapped else int(of.get("model", 0)),
            int(of.get("KV", 0)),
            int(of.get("compute", 0)),
        )
        for device, of in sums.items()
    }


def unpinned_in(log: Iterable[str]) -> int:
    """Sum the bytes of weights in ordinary host memory ("CPU"), where a driver that pins memory would show its own buffer ("CUDA_Host")."""
    lines = ((line, _LINE.search(line)) for line in log if len(line) <= LONGEST_LINE)
    names = ((line[: match.start()].split(), match) for line, match in lines if match and match[1] == "model")
    return int(sum(float(match[2]) for before, match in names if before and before[-1] == "CPU") * MIB)


def cache_in(log: Iterable[str]) -> int:
    """Sum the sizes of the caches that a context's log names: what it would take, whether it was allocated or not."""
    matches = (_CACHE.search(line) for line in log if len(line) <= LONGEST_LINE)
    return int(sum(float(match[1]) for match in matches if match) * MIB)


def compare(expected: Expected, real: Mapping[str, Buffers]) -> list[Comparison]:
    """Hold a ledger (bytes of weights, kv and compute by device) against buffers; mapped weights are left out on both sides."""
    found = []
    for device, planned in expected.items():
        took = real.get(device, Buffers(0, 0, 0))
        parts = [("kv", planned["kv"], took.kv), ("compute", planned["compute"], took.compute)]
        if took.weights is not None:
            parts.insert(0, ("weights", planned["weights"], took.weights))
        found.append(Comparison(device, tuple(parts)))
    return found


__all__ = ["HOST", "TOLERANCE", "Buffers", "buffers_in", "cache_in", "compare", "unpinned_in"]
