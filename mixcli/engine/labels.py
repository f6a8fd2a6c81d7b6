"""A choice among given texts, answered from logits: how likely is each of them as the beginning of the answer? Nothing is sampled.

The labels' tokens form a trie below the prompt. What is needed is the logits behind the prompt and behind each inner node; these are
decoded as one batch, each node once, with the branches that run through it as its sequences. A label's score is the sum of the
log-probabilities of all its tokens; of a label that another one begins with ("pos", "positive") the end of the answer is a part. So the
labels are events that exclude each other, and their probabilities are normalised over the labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.logprobs import log_sum

Prefix = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """A token to compute: the prefix that it ends, and which branches of the round (counted from 0) run through it."""

    prefix: Prefix
    branches: tuple[int, ...]

    @property
    def token(self) -> int:
        return self.prefix[-1]

    @property
    def depth(self) -> int:
        """Tokens between it and the prompt."""
        return len(self.prefix) - 1


class LabelScores:
    """The scores of one request's labels, complete once every inner prefix has been seen.

    `ends` are the tokens that end an answer. `branches` are the longest prefixes that must be computed.
    """

    def __init__(self, labels: Sequence[Prefix], ends: Iterable[int]) -> None:
        self._ends = np.fromiter(ends, np.int64)
        self._sums = np.zeros(len(labels))
        self._next: dict[Prefix, list[tuple[int, int]]] = {}  # prefix: (label, the token that follows)
        for label, tokens in enumerate(labels):
            for n in range(len(tokens)):
                self._next.setdefault(tokens[:n], []).append((label, tokens[n]))
        self._closed = {tokens: label for label, tokens in enumerate(labels) if tokens in self._next}
        self._unseen = set(self._next)
        parents = {prefix[:-1] for prefix in self._next if prefix}
        self.branches = [prefix for prefix in self._next if prefix and prefix not in parents]

    @property
    def n_labels(self) -> int:
        return len(self._sums)

    @property
    def is_complete(self) -> bool:
        return not self._unseen

    def nodes(self, first: int, n_branches: int) -> list[Node]:
        """Give what to compute for some branches, parents before children; branches of an earlier round may be computed again in part."""
        through: dict[Prefix, list[int]] = {}
        for i, branch in enumerate(self.branches[first : first + n_branches]):
            for n in range(1, len(branch) + 1):
                through.setdefault(branch[:n], []).append(i)
        return [Node(prefix, tuple(through[prefix])) for prefix in sorted(through, key=len)]

    def see(self, prefix: Prefix, logits: NDArray[np.float32]) -> None:
        """Take the logits (shape: the vocabulary) behind the prompt, for the prefix (), or behind an inner prefix; once each."""
        if prefix not in self._unseen:
            return
        self._unseen.remove(prefix)
        total = log_sum(logits)
        for label, token in self._next[prefix]:
            self._sums[label] += float(logits[token]) - total
        if prefix in self._closed:
            self._sums[self._closed[prefix]] += log_sum(logits[self._ends]) - total

    def probabilities(self) -> tuple[float, ...]:
        """Give each label's probability, in the labels' order; they sum to one."""
        weights = np.exp(self._sums - self._sums.max())
        return tuple(float(weight) for weight in weights / weights.sum())
