"""Prompt lookup decoding: draft the next tokens from earlier occurrences in the text; lossless.

The last few tokens are looked up among all earlier ones; what followed there is the draft (Saxena, "Prompt Lookup Decoding", 2023).
A drafted token costs time, in a mixture of experts and on a slow processor much of what a plain one costs. So what a step takes, what each
draft adds, and how often a guess is right are measured as the answer goes, and the draft is as long as the expected tokens per second are most:
with probability p for each guess, a draft of n brings (1 - p^(n+1)) / (1 - p) tokens.
"""

from collections.abc import Sequence

NGRAM = 3  # tokens that must repeat
SHORTEST, LONGEST = 2, 24  # of a draft
PAUSE, LONGEST_PAUSE = 16, 512  # plain steps after drafts stopped to pay
KEEP = 0.8  # share of the old value in a running mean
PRIOR_ACCEPTANCE = 0.9  # that a guess is right, before any was seen
COST = 0.3  # of a plain step that a guess adds, before any was seen


class PromptLookup:
    """The drafts of one sequence."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram: where its continuation begins
        self._n_indexed = 0
        self._pause = 0
        self._next_pause = PAUSE
        self._plain = 0.0  # seconds of a step without drafts
        self._cost = COST  # of each guess, in plain steps
        self._right = PRIOR_ACCEPTANCE

    def propose(self, tokens: Sequence[int]) -> list[int]:
        """Guess what comes after `tokens`; [] where nothing repeats or drafts do not pay at present."""
        self._index(tokens)
        if self._pause > 0:
            self._pause -= 1
            if not self._pause:
                self._right = PRIOR_ACCEPTANCE  # the text may have become another: one more try
            return []
        at = self._seen.get(tuple(tokens[-NGRAM:]))
        if at is None or not self._plain:  # without a plain step there is nothing to compare with
            return []
        length = self._length()
        known = list(tokens[at : at + length])
        while len(known) < length:  # the guess is guessed on from, as a period repeats
            known += known[: length - len(known)]
        return known

    def observe(self, n_drafted: int, n_accepted: int, seconds: float) -> None:
        """Learn from a step that took so long for one token and `n_accepted` right guesses of `n_drafted`; only guesses of `propose` count."""
        if not n_drafted:
            self._plain = _mean(self._plain, seconds)
            return
        if self._plain <= 0:  # without a plain step there is nothing to compare with
            return
        self._cost = _mean(self._cost, max(0.0, seconds / self._plain - 1) / n_drafted)
        n_tried = n_accepted + (n_accepted < n_drafted)
        keep = KEEP**n_tried  # each guess that was looked at counts
        self._right = keep * self._right + (1 - keep) * n_accepted / n_tried
        if self._length() == 0:
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
        elif n_accepted == n_drafted:
            self._next_pause = PAUSE

    def _length(self) -> int:
        """Return the length of a draft that brings the most tokens per second; 0 where none does."""

        def rate(n: int) -> float:
            p = min(self._right, 0.99)
            return (1 - p ** (n + 1)) / (1 - p) / (1 + n * self._cost)

        best = max((0, *range(SHORTEST, LONGEST + 1)), key=rate)
        return best if rate(best) > rate(0) else 0

    def _index(self, tokens: Sequence[int]) -> None:
        """Remember every n-gram that has a continuation, the latest place winning."""
        for end in range(max(NGRAM, self._n_indexed), len(tokens)):
            self._seen[tuple(tokens[end - NGRAM : end])] = end
        self._n_indexed = len(tokens)


def _mean(old: float, new: float) -> float:
    return KEEP * old + (1 - KEEP) * new if old else new
