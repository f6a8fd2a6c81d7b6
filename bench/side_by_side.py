"""Are two ways to compute a model the same function? Logits of both, token by token, after the text that the first one chooses."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.llama import Batch, Context

Logits = NDArray[np.float32]
# Root mean square, as a share of the logits' spread. The processor's own two kernels (repacking on and off) are 0.05 apart on the demo,
# because they round activations differently; logits of another model, or of one wrong tensor, would be more than 1 apart.
NEAR = 0.15


def side_by_side(
    first: Context, second: Context, tokens: Sequence[int], n_tokens: int
) -> Iterator[tuple[Logits, Logits]]:
    """Give both logits after the prompt and after each of the tokens that follow it, the likeliest by `first`; `n_tokens` pairs."""
    batch, position = Batch(max(1, len(tokens))), 0
    for context in (first, second):
        context.cut(0, 0)
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
    """How many tokens were compared, how far logits were `apart` at most, at how many tokens the second would have chosen another one,
    and by what share of the spread the first one's choice was ahead of it then, at most."""

    n_tokens: int
    apart: float
    differ: int
    lead: float

    @property
    def same(self) -> bool:
        """Whether the text is the same one, up to choices that hang on rounding."""
        return self.n_tokens > 0 and self.apart <= NEAR and self.lead <= NEAR

    def __str__(self) -> str:
        text = (
            f"{self.differ} chosen otherwise, ahead by {self.lead:.3f}"
            if self.differ
            else "the text is equal"
        )
        return f"{self.n_tokens} tokens, logits {self.apart:.4f} of their spread apart, {text}"


def verdict(pairs: Iterable[tuple[Logits, Logits]]) -> Verdict:
    """Judge what `side_by_side` gives."""
    distances, leads = [], []
    for one, other in pairs:
        distances.append(apart(other, one))
        if (choice := int(other.argmax())) != int(one.argmax()):
            leads.append(float((one.max() - one[choice]) / one.std()))
    return Verdict(len(distances), max(distances, default=0.0), len(leads), max(leads, default=0.0))


__all__ = ["NEAR", "Verdict", "apart", "side_by_side", "verdict"]
