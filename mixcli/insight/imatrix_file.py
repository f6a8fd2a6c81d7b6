"""Write importance matrices as llama-imatrix does, GGUF or .dat, and keep an unfinished one beside the result."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixcli.errors import DoesNotFit
from mixcli.insight.importance import Importance, n_chunks_of
from mixcli.system.json_cache import replace_bytes
from mixcli.system.text import shown
from quantize.errors import QuantizeError
from quantize.file_layout import ALIGNMENT, header_bytes, pad
from quantize.ggml_types import GGMLQuantizationType
from quantize.output_target import is_gguf
from quantize.source import Value, text, texts, u32
from quantize.sources.gguf_header import read_header
from quantize.wording import DISK_FULL

SUMS, COUNTS = ".in_sum2", ".counts"
_RUN, _DONE = "mixcli.run", "mixcli.chunks_done"
_FLOAT = GGMLQuantizationType.F32


@dataclass(frozen=True)
class PartialSums:
    """The sums after the first `n_done` chunks of a run, which `run` identifies: the model's file, the text, and how it is cut."""

    run: str
    n_done: int
    entries: dict[str, Importance]


def is_imatrix(beginning: bytes) -> bool:
    """Return whether a file begins as an importance matrix of either format does."""
    if is_gguf(beginning):
        return b"imatrix" in beginning[:4096]
    try:
        n_entries, n_name = struct.unpack_from("<ii", beginning)
    except struct.error:
        return False
    return n_entries > 0 and b".weight" in beginning[8 : 8 + max(0, min(n_name, 256))]


def is_partial(beginning: bytes) -> bool:
    """Return whether a file begins as `write_partial` writes it."""
    return is_gguf(beginning) and _RUN.encode() in beginning[:4096]


def write_imatrix(path: Path, entries: Mapping[str, Importance], n_ctx: int, dataset: str) -> None:
    """Write the file whole or not at all: llama-imatrix's .dat where the name ends so, else its GGUF. `n_ctx` are tokens of a chunk."""
    if path.suffix == ".dat":
        _replace(path, _dat(entries, n_ctx, dataset))
        return
    metadata = {
        "general.type": text("imatrix"),
        "imatrix.datasets": texts([dataset]),
        "imatrix.chunk_count": u32(n_chunks_of(entries, n_ctx)),
        "imatrix.chunk_size": u32(n_ctx),
    }
    _replace(path, _gguf(metadata, entries))


def write_partial(path: Path, partial: PartialSums) -> None:
    """Write an unfinished matrix; float32 holds its counts exactly up to 16 million tokens, as it does in the result."""
    metadata = {_RUN: text(partial.run), _DONE: u32(partial.n_done)}
    _replace(path, _gguf(metadata, partial.entries))


def _replace(path: Path, raw: bytes) -> None:
    """Write a file that a person may have asked for anywhere; DoesNotFit for a full disk."""
    try:
        replace_bytes(path, raw)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise DoesNotFit(
            f"no space left for {shown(path)}; free some, or choose another folder with -o"
        ) from None


def read_partial(path: Path, run: str) -> PartialSums | None:
    """Return what `write_partial` left of the same run; None where there is nothing, or something else."""
    try:
        header = read_header(path)
        n_done = header.get(_DONE)
        if header.get(_RUN) != run or not isinstance(n_done, int):
            return None
        values = {
            tensor.name: np.fromfile(path, "<f4", tensor.n_elements, offset=tensor.offset).reshape(
                tensor.shape
            )
            for tensor in header.tensors
        }
    except (OSError, QuantizeError, ValueError):
        return None
    entries = {
        name.removesuffix(SUMS): Importance(
            np.atleast_2d(sums),
            np.rint(values[name.removesuffix(SUMS) + COUNTS]).astype(np.int64).reshape(-1),
        )
        for name, sums in values.items()
        if name.endswith(SUMS)
    }
    return PartialSums(run, n_done, entries)


def _gguf(metadata: Mapping[str, Value], entries: Mapping[str, Importance]) -> bytes:
    """Return the GGUF: sums and counts of each tensor, by name; as ggml writes them, without leading dimensions of one."""
    parts: list[bytes] = []
    heads = []
    end = 0
    for name in sorted(entries):
        entry = entries[name]
        n = len(entry.counts)
        for suffix, values in ((SUMS, entry.sums.reshape(n, -1)), (COUNTS, entry.counts.reshape(n, 1))):
            data = values.astype("<f4").tobytes()
            heads.append((name + suffix, _FLOAT, values.shape if n > 1 else values.shape[1:], end))
            parts += (data, bytes(pad(len(data), ALIGNMENT) - len(data)))
            end += pad(len(data), ALIGNMENT)
    return header_bytes(metadata, heads) + b"".join(parts)


def _dat(entries: Mapping[str, Importance], n_ctx: int, dataset: str) -> bytes:
    """Return the older format: means times the number of chunks, that number, and 1 for experts without a token."""
    kept = {name: entry for name, entry in entries.items() if entry.counts.any()}
    parts = [struct.pack("<i", len(kept))]
    for name in sorted(kept):
        entry = kept[name]
        n_calls = -(-int(entry.counts.max()) // n_ctx)
        count = entry.counts.astype(np.float32)[:, None]
        rows = entry.sums.reshape(len(count), -1)
        with np.errstate(all="ignore"):
            means = np.where(count > 0, rows / np.where(count > 0, count, 1), 1)
        values = means.astype(np.float32) * np.float32(n_calls)
        encoded = name.encode()
        parts += (struct.pack("<i", len(encoded)), encoded, struct.pack("<ii", n_calls, values.size))
        parts.append(values.astype("<f4").tobytes())
    named = os.fsencode(dataset)
    parts.append(struct.pack("<ii", n_chunks_of(entries, n_ctx), len(named)) + named)
    return b"".join(parts)
