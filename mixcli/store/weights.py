"""Compare the weights of two models by content, without reading all of it: for machines that must have the same files.

The time of change and the location do not count: each machine has its own copy.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mixcli.errors import IntegrityError
from mixcli.store.manifest import Manifest
from mixcli.store.store import StoredModel
from mixcli.system.formatting import counted
from quantize.errors import QuantizeError
from quantize.sources.input_file import opened, pread_exactly

FIRST = (
    16 << 20
)  # bytes from the beginning that are compared: the header, with the vocabulary, and the first tensors
N_SAMPLES, SAMPLE = 64, 4096  # places in the rest of a file, and bytes at each


class WeightsPart(NamedTuple):
    """A file of a model: its name, its bytes, and the SHA-256 of the beginning and the samples."""

    name: str
    size: int
    digest: str


class Weights(NamedTuple):
    """What a name means on a machine: `checksum` is the SHA-256 of all bytes where the store has it, else empty."""

    label: str
    checksum: str
    parts: tuple[WeightsPart, ...]

    def __str__(self) -> str:
        digests = "".join(part.digest for part in self.parts)
        return f"{self.label} {self.checksum or hashlib.sha256(digests.encode()).hexdigest()}"

    def differences(self, other: "Weights") -> list[str]:
        """Return in words which files of another model differ from those of this one; nothing where the weights are the same."""
        if len(self.parts) != len(other.parts):
            return [f"{counted(len(other.parts), 'file')} instead of {len(self.parts)}"]
        found = []
        for own, there in zip(self.parts, other.parts, strict=True):
            if own.size != there.size:
                found.append(f"{there.name} is {there.size:,} bytes long instead of {own.size:,}")
            elif own.digest != there.digest:
                found.append(f"{there.name} has the same size but different contents")
        if not found and self.checksum and other.checksum and self.checksum != other.checksum:
            found.append(f"checksum {other.checksum[:12]} instead of {self.checksum[:12]}")
        return found


def weights_of(stored: StoredModel) -> Weights:
    """Return what tells a model's weights apart; IntegrityError for a file that cannot be read."""
    checksum = checksum_of(stored.manifest) if stored.manifest else ""
    return Weights(stored.label, checksum, tuple(map(_part, stored.parts)))


def checksum_of(about: Manifest) -> str:
    """Return the SHA-256 of a model of the store: that of its file, or one over those of all of several."""
    sums = [file.sha256 for file in about.files]
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()


def _part(path: Path) -> WeightsPart:
    digest = hashlib.sha256()
    try:
        with opened(path) as fd:
            size = os.fstat(fd).st_size
            for offset, n_bytes in _places(size):
                digest.update(pread_exactly(fd, offset, n_bytes))
    except QuantizeError as error:
        raise IntegrityError(str(error)) from error
    return WeightsPart(path.name, size, digest.hexdigest())


def _places(size: int) -> Iterator[tuple[int, int]]:
    """Yield offset and number of bytes of what is compared of a file of some size: its last bytes are part of it."""
    yield 0, min(FIRST, size)
    rest = size - FIRST
    for number in range(1, N_SAMPLES + 1):
        if rest > SAMPLE:
            yield FIRST + (rest - SAMPLE) * number // N_SAMPLES, SAMPLE
    if 0 < rest <= SAMPLE:
        yield FIRST, rest


__all__ = ["Weights", "WeightsPart", "checksum_of", "weights_of"]
