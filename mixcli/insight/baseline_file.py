"""The distributions of a baseline model over the next token, kept small enough that two models need not be loaded at once.

Of each position the likeliest tokens are kept and, of the rest, its mass and a sample drawn by probability. The divergence over kept
tokens and the mass of the rest is exact; what differs inside the rest is estimated from the sample, without bias. If errors of logits are
alike, the rest has a share of the divergence as large as its mass r, and m drawn tokens leave a relative error of r sqrt(2 / m) (the
summands are squares of normal numbers). So many tokens are kept, and so many drawn, that this is ERROR at a position and the fewest are
stored: 2 / ERROR^2 at most. The error of a mean over n positions is ERROR / sqrt(n).

Logarithms of probabilities take 16 bits. What is stored is the square root of the logarithm, which is exact where it counts: to 1e-8 near
a probability of one, and to 2e-4 where it is one in a thousand.
"""

import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import IntegrityError
from mixcli.insight.vocabularies import not_alike
from mixcli.system.regular_file import open_regular

ERROR = 0.03  # standard error of the divergence at one position, as a share of it
MOST = ceil(2 / ERROR**2)  # tokens of a position
LEAST = -24.0  # log probability; less likely tokens count as so likely
FORMAT = 3
MAX_HEAD = 1 << 12  # bytes of the first line
Logs = NDArray[np.float32]


@dataclass(frozen=True)
class BaselineHead:
    """What a file is of: `label` of the model, the vocabulary's size, tokens of a chunk, chunks, and the SHA-256 of all token ids."""

    label: str
    n_vocab: int
    n_ctx: int
    n_chunks: int
    tokens: str
    format: int = FORMAT

    def check(self, other: "BaselineHead") -> None:
        """Raise UsageError where another model does not read the same tokens."""
        if (self.n_vocab, self.tokens, self.n_chunks) != (other.n_vocab, other.tokens, other.n_chunks):
            raise not_alike((other.label, other.n_vocab), (self.label, self.n_vocab))


@dataclass(frozen=True)
class Distributions:
    """The distributions at n positions: `counts` (n,) tokens are kept of each and `drawn` (n,) of the rest.

    They stand one position after the other in `ids` and `codes`, likeliest first, drawn ones last. `rest` (n,) is the mass of all that
    are not kept, `nll` (n,) the negative logarithm of the probability of the token that follows.
    """

    counts: NDArray[np.uint32]
    drawn: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    codes: NDArray[np.uint16]
    rest: NDArray[np.float32]
    nll: NDArray[np.float32]

    @classmethod
    def of(cls, logs: Logs, targets: NDArray[np.int64]) -> "Distributions":
        """Keep what counts of log probabilities (n, vocabulary) and of the tokens that follow (n,)."""
        found = [_chosen(row) for row in logs]
        widths = [len(kept) + len(drawn) for kept, drawn, _ in found]
        ids = np.concatenate([ids for kept, drawn, _ in found for ids in (kept, drawn)])
        return cls(
            np.array([len(kept) for kept, _, _ in found], np.uint32),
            np.array([len(drawn) for _, drawn, _ in found], np.uint32),
            ids.astype(np.uint32),
            _coded(logs[np.repeat(np.arange(len(logs)), widths), ids]),
            np.array([rest for _, _, rest in found], np.float32),
            -logs[np.arange(len(logs)), targets].astype(np.float32),
        )

    def part(self, at: slice) -> "Distributions":
        """Return those of some positions."""
        starts = np.append(self._starts(), len(self.ids))
        first, last = at.start, min(at.stop, len(self.counts))
        kept = slice(int(starts[first]), int(starts[last]))
        return Distributions(
            self.counts[at], self.drawn[at], self.ids[kept], self.codes[kept], self.rest[at], self.nll[at]
        )

    def divergence(self, logs: Logs) -> NDArray[np.float64]:
        """Return the Kullback-Leibler divergence in nats (n,) of other log probabilities (n, vocabulary) from these.

        Every summand p ln(p/q) - p + q is at least 0, so that rounding p hardly matters. Inside the rest, p and q are shares of it.
        """
        starts, widths = self._starts(), self.counts + self.drawn
        rows = np.repeat(np.arange(len(logs)), widths)
        is_kept = np.arange(len(rows)) - starts[rows] < self.counts[rows]
        own, other = _decoded(self.codes), logs[rows, self.ids].astype(np.float64)
        p = self.rest.astype(np.float64)
        q = np.maximum(1 - np.add.reduceat(np.where(is_kept, np.exp(other), 0), starts), 1e-9)
        mass = np.where(p > 0, p * np.log(np.maximum(p, 1e-30) / q), 0) - p + q
        log_p, log_q = np.log(np.maximum(p, 1e-30)), np.log(q)
        ratio = (other - log_q[rows]) - (own - log_p[rows])
        weight = p[rows] / np.maximum(self.drawn[rows], 1)
        terms = np.where(
            is_kept,
            np.exp(own) * (own - other) - np.exp(own) + np.exp(other),
            weight * (np.exp(np.where(is_kept, 0, ratio)) - 1 - ratio),
        )
        return np.asarray(np.add.reduceat(terms, starts) + mass)

    def agreement(self, logs: Logs) -> NDArray[np.bool_]:
        """Return whether the likeliest token is the same (n,)."""
        return np.asarray(self.ids[self._starts()] == logs.argmax(axis=1))

    def _starts(self) -> NDArray[np.int64]:
        return np.concatenate([[0], np.cumsum((self.counts + self.drawn).astype(np.int64))[:-1]])


def joined(parts: list[Distributions]) -> Distributions:
    """Put distributions of positions after each other."""
    return Distributions(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("counts", "drawn", "ids", "codes", "rest", "nll")
        )
    )


def _chosen(row: Logs) -> tuple[NDArray[np.int64], NDArray[np.int64], float]:
    """Return the tokens to keep, likeliest first, those drawn of the rest, and its mass.

    One draws at equal steps of the rest's summed mass, so that the same row gives the same tokens.
    """
    n = min(MOST, len(row))
    top = np.sort(np.argpartition(-row, n - 1)[:n])
    top = top[np.argsort(-row[top], kind="stable")]
    mass = np.exp(row.astype(np.float64))
    left = np.maximum(mass.sum() - np.cumsum(mass[top]), 0)
    n_drawn = np.ceil(2 * (left / ERROR) ** 2 - 1e-9)
    n_kept = int(np.argmin(np.arange(1, n + 1) + n_drawn)) + 1
    mass[top[:n_kept]] = 0
    summed = np.cumsum(mass)
    m = int(n_drawn[n_kept - 1]) if summed[-1] > 0 else 0
    drawn = np.searchsorted(summed, (np.arange(m) + 0.5) / max(m, 1) * summed[-1])
    return top[:n_kept], drawn, float(summed[-1])


def _coded(logs: Logs) -> NDArray[np.uint16]:
    """Return log probabilities from LEAST to 0 as numbers of 16 bits."""
    codes: NDArray[np.uint16] = np.rint(np.sqrt(np.clip(logs / LEAST, 0, 1)) * 65535).astype(np.uint16)
    return codes


def _decoded(codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    return np.asarray(LEAST * (codes.astype(np.float64) / 65535) ** 2)


class BaselineWriter:
    """Writes a file chunk by chunk."""

    def __init__(self, file: BinaryIO, head: BaselineHead) -> None:
        self._file = file
        file.write(json.dumps(asdict(head)).encode() + b"\n")

    def add(self, chunk: Distributions) -> None:
        """Write the distributions of one chunk."""
        data = b"".join(
            values.astype(kind).tobytes() for values, kind in zip(vars(chunk).values(), _KINDS, strict=True)
        )
        self._file.write(_CHUNK.pack(len(chunk.counts), len(chunk.ids), crc32(data)) + data)


_CHUNK = struct.Struct("<III")  # positions, tokens that are kept, CRC-32 of the bytes that follow
_KINDS = ("<u4", "<u4", "<u4", "<u2", "<f4", "<f4")  # of the fields of Distributions


@contextmanager
def written(path: Path, head: BaselineHead) -> Iterator[BaselineWriter]:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield BaselineWriter(file, head)
        part.replace(path)
    except OSError as error:
        error.filename = error.filename or os.fspath(path)  # a write knows no name
        raise
    finally:
        part.unlink(missing_ok=True)


class BaselineReader:
    """Reads a file chunk by chunk."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, open_regular(path)
        try:
            data = json.loads(self._file.readline(MAX_HEAD))
            self.head = BaselineHead(**data)
            if self.head.format != FORMAT or any(
                type(data[field.name]) is not field.type for field in fields(BaselineHead)
            ):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError):
            self._file.close()
            raise IntegrityError(f"{path} is not a baseline of mixcli perplexity; remove it") from None

    def next(self) -> Distributions:
        """Return the distributions of the next chunk; IntegrityError where the file ends before, or its bytes have changed."""
        n, n_kept, checksum = _CHUNK.unpack(self._read(_CHUNK.size))
        sizes = [
            count * np.dtype(kind).itemsize
            for count, kind in zip((n, n, n_kept, n_kept, n, n), _KINDS, strict=True)
        ]
        data = self._read(sum(sizes))
        if crc32(data) != checksum:
            raise IntegrityError(f"{self._path} is damaged; remove it and rerun the command")
        pieces = (data[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True))
        return Distributions(
            *(np.frombuffer(piece, kind) for piece, kind in zip(pieces, _KINDS, strict=True))
        )

    def close(self) -> None:
        self._file.close()

    def _read(self, n: int) -> bytes:
        if os.fstat(self._file.fileno()).st_size - self._file.tell() < n:
            raise IntegrityError(f"{self._path} is truncated; remove it and rerun the command")
        return self._file.read(n)
