"""Are two ways to compute a model the same function? Logits of both, token by token, after the text that the first one chooses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from mixcli.llama.batch import Batch
from mixcli.llama.context import Context

Logits = NDArray[np.float32]
# Root mean square, as a share of the logits' spread. The processor's own two kernels (repacking on and off) are 0.05 apart on the demo,
# because they round activations differently; logits of another model, or of one wrong tensor, would be more than 1 apart.
NEAR = 0.15
# Where two experts are almost equally likely, rounding decides, and a token is further apart for it: of 48 tokens by a random mixture the one that was
# furthest came to 0.35 to 0.37 between kernels of the processor (repacked or plain, with flash attention or without), the median to 0.05; between
# the processor and an H200 to 0.26 to 0.57, the median to 0.04 to 0.05.
FAR = 0.65
LEAD = 5.0  # a choice that hangs on rounding is ahead by no more than a few times the distance (4.0 was seen)


def side_by_side(
    first: Context, second: Context, tokens: Sequence[int], n_tokens: int
) -> Iterator[tuple[Logits, Logits]]:
    """Give both logits after the prompt and after each of the tokens that follow it, the likeliest by `first`; `n_tokens` pairs."""
    batch, position = Batch(max(1, len(tokens))), 0
    for context in (first, second):
        context.truncate(0, 0)
    for _ in range(n_tokens):
        batch.clear()
        batch.extend(tokens, position, 0, n_logits=1)
        position += len(tokens)
        for context in (first, second):
            context.decode(batch)
        one = first.logits().copy()
        yield one, second.logits().copy()
        tokens = [int(one.argmax())]


def apart(logits: Sequence[float] | Logits, expected: Sequence[float] | Logits) -> float:
    """Say how far logits are from those that are expected, as a share of their spread; infinite when one is no number."""
    a, b = np.asarray(logits, np.float64), np.asarray(expected, np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2)) / b.std()) if np.isfinite(a).all() else np.inf


@dataclass(frozen=True)
class Verdict:
    """How far logits are apart at each token, and for each token that the second would have chosen otherwise, by how much the first one's
    choice was ahead of it, in terms of the distance there."""

    distances: tuple[float, ...]
    leads: tuple[float, ...]

    @property
    def same(self) -> bool:
        """Whether both are the same function up to rounding, and the text the same up to choices that hang on it."""
        near = bool(self.distances) and median(self.distances) <= NEAR and max(self.distances) <= FAR
        return near and max(self.leads, default=0.0) <= LEAD

    def __str__(self) -> str:
        middle, most = median(self.distances), max(self.distances)
        said = f"{len(self.distances)} tokens, logits {middle:.3f} of their spread apart, {most:.3f} at most"
        if not self.leads:
            return f"{said}; the text is equal"
        ahead = max(self.leads)
        return f"{said}; {len(self.leads)} chosen otherwise, ahead by {ahead:.1f} of that distance at most"


def verdict(pairs: Iterable[tuple[Logits, Logits]]) -> Verdict:
    """Judge what `side_by_side` gives."""
    distances, leads = [], []
    for one, other in pairs:
        distances.append(apart(other, one))
        if (choice := int(other.argmax())) != int(one.argmax()):
            leads.append(float((one.max() - one[choice]) / one.std()) / distances[-1])
    return Verdict(tuple(distances), tuple(leads))


__all__ = ["FAR", "NEAR", "Verdict", "apart", "side_by_side", "verdict"]
