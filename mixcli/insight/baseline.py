"""The distributions of a baseline model over the next token, kept small enough that two models need not be loaded at once.

Of each position the likeliest tokens are kept, with the logarithm of their probability in 16 bits, until REST of the mass is left; of that
only the sum. What is stored is the square root of the logarithm, which is exact where it counts: to 1e-8 near a probability of one, and to
1e-4 where it is one in a thousand.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mixcli.errors import IntegrityError, UsageError

REST = 1e-3  # the mass of the tokens that are not kept
LEAST = -16.0  # log probability; less likely tokens are never kept, as llama-perplexity leaves them out
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

    def check(self, other: "BaselineHead") -> None:
        """Raise UsageError where another model does not read the same tokens."""
        if (self.n_vocab, self.tokens, self.n_chunks) != (other.n_vocab, other.tokens, other.n_chunks):
            raise not_alike((other.label, other.n_vocab), (self.label, self.n_vocab))


def not_alike(model: tuple[str, int], baseline: tuple[str, int]) -> UsageError:
    """Return the error on two models, each with its label and the size of its vocabulary, that do not read the same tokens."""
    return UsageError(
        f"{model[0]} ({model[1]:,} tokens) and the baseline {baseline[0]} ({baseline[1]:,} tokens) split the text "
        "differently; compare files of the same model"
    )


@dataclass(frozen=True)
class Distributions:
    """The distributions at n positions: `counts` (n,) tokens are kept of each, one position behind the other in `ids` and `codes`.

    `rest` (n,) is the mass of all others, `nll` (n,) the negative logarithm of the probability of the token that follows.
    """

    counts: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    codes: NDArray[np.uint16]
    rest: NDArray[np.float32]
    nll: NDArray[np.float32]

    @classmethod
    def of(cls, logs: Logs, targets: NDArray[np.int64]) -> "Distributions":
        """Keep what counts of log probabilities (n, vocabulary) and of the tokens that follow (n,)."""
        kept = [_likeliest(row) for row in logs]
        ids = np.concatenate(kept)
        counts = np.array([len(one) for one in kept], np.uint32)
        rows = np.repeat(np.arange(len(logs)), counts)
        mass = np.add.reduceat(np.exp(logs[rows, ids].astype(np.float64)), _starts(counts))
        return cls(
            counts,
            ids.astype(np.uint32),
            _coded(logs[rows, ids]),
            np.maximum(1 - mass, 0).astype(np.float32),
            -logs[np.arange(len(logs)), targets].astype(np.float32),
        )

    def part(self, at: slice) -> "Distributions":
        """Return those of some positions."""
        starts = np.append(_starts(self.counts), len(self.ids))
        first, last = at.start, min(at.stop, len(self.counts))
        kept = slice(int(starts[first]), int(starts[last]))
        return Distributions(self.counts[at], self.ids[kept], self.codes[kept], self.rest[at], self.nll[at])

    def divergence(self, logs: Logs) -> NDArray[np.float64]:
        """Return the Kullback-Leibler divergence in nats (n,) of other log probabilities (n, vocabulary) from these.

        The rest counts as one more token, which leaves out what differs inside it. Every summand p ln(p/q) - p + q is at least 0, so
        that rounding p hardly matters.
        """
        rows = np.repeat(np.arange(len(logs)), self.counts)
        own, other = _decoded(self.codes), logs[rows, self.ids].astype(np.float64)
        starts = _starts(self.counts)
        terms = np.exp(own) * (own - other) - np.exp(own) + np.exp(other)
        p = self.rest.astype(np.float64)
        q = np.maximum(1 - np.add.reduceat(np.exp(other), starts), 1e-9)
        rest = np.where(p > 0, p * np.log(np.maximum(p, 1e-30) / q), 0) - p + q
        return np.asarray(np.add.reduceat(terms, starts) + rest)

    def agreement(self, logs: Logs) -> NDArray[np.bool_]:
        """Return whether the likeliest token is the same (n,)."""
        return np.asarray(self.ids[_starts(self.counts)] == logs.argmax(axis=1))


def joined(parts: list[Distributions]) -> Distributions:
    """Put distributions of positions behind each other."""
    return Distributions(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("counts", "ids", "codes", "rest", "nll")
        )
    )


def _likeliest(row: Logs) -> NDArray[np.int64]:
    """Return the tokens that hold all but REST of the mass, likeliest first."""
    ids = np.flatnonzero(row > min(LEAST, row.max()))
    if not len(ids):
        return np.array([int(row.argmax())])
    ids = ids[np.argsort(-row[ids], kind="stable")]
    mass = np.cumsum(np.exp(row[ids].astype(np.float64)))
    return np.asarray(ids[: int(np.searchsorted(mass, 1 - REST)) + 1])


def _coded(logs: Logs) -> NDArray[np.uint16]:
    """Return log probabilities from LEAST to 0 as numbers of 16 bits."""
    codes: NDArray[np.uint16] = np.rint(np.sqrt(np.clip(logs / LEAST, 0, 1)) * 65535).astype(np.uint16)
    return codes


def _decoded(codes: NDArray[np.uint16]) -> NDArray[np.float64]:
    return np.asarray(LEAST * (codes.astype(np.float64) / 65535) ** 2)


def _starts(counts: NDArray[np.uint32]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts.astype(np.int64))[:-1]])


class BaselineWriter:
    """Writes a file chunk by chunk."""

    def __init__(self, file: BinaryIO, head: BaselineHead) -> None:
        self._file = file
        file.write(json.dumps(asdict(head)).encode() + b"\n")

    def add(self, chunk: Distributions) -> None:
        """Write the distributions of one chunk."""
        np.array([len(chunk.counts), len(chunk.ids)], "<u4").tofile(self._file)
        for values, kind in zip(vars(chunk).values(), _KINDS, strict=True):
            values.astype(kind).tofile(self._file)


_KINDS = ("<u4", "<u4", "<u2", "<f4", "<f4")  # of the fields of Distributions


@contextmanager
def written(path: Path, head: BaselineHead) -> Iterator[BaselineWriter]:
    """Write a file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("xb") as file:
            yield BaselineWriter(file, head)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class BaselineReader:
    """Reads a file chunk by chunk."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, path.open("rb")
        try:
            self.head = BaselineHead(**json.loads(self._file.readline(MAX_HEAD)))
        except (ValueError, TypeError):
            self._file.close()
            raise IntegrityError(f"{path} is not a baseline of mixcli perplexity; remove it") from None

    def next(self) -> Distributions:
        """Return the distributions of the next chunk; IntegrityError where the file ends before."""
        n, n_kept = (int(number) for number in self._values(2, "<u4"))
        sizes = (n, n_kept, n_kept, n, n)
        return Distributions(*(self._values(size, kind) for size, kind in zip(sizes, _KINDS, strict=True)))

    def close(self) -> None:
        self._file.close()

    def _values(self, n: int, kind: str) -> NDArray[Any]:
        values = np.fromfile(self._file, kind, n)
        if len(values) < n:
            raise IntegrityError(f"{self._path} is truncated; remove it, and run the command again")
        return values
