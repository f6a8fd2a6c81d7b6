"""Prompt lookup: guesses of the next tokens, taken from where the text said the same before. Lossless: the model checks every guess.

The last few tokens are looked up among all earlier ones; what followed there is the draft (Saxena, "Prompt Lookup Decoding", 2023).
Each drafted token costs time, in a mixture of experts more than in a dense model, so the length follows what is accepted, and
drafting stops for a while when tokens come faster without it: both rates are measured as the answer goes.
"""

from collections.abc import Sequence

NGRAM = 3  # tokens that must repeat
SHORTEST, LONGEST = 2, 24  # of a draft
PAUSE, LONGEST_PAUSE = 16, 512  # plain steps after drafts that did not pay
KEEP = 0.8  # share of the old value in a running mean


class PromptLookup:
    """The drafts of one sequence."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram: where its continuation begins
        self._n_indexed = 0
        self._length = SHORTEST * 2
        self._pause = 0
        self._next_pause = PAUSE
        self._plain = 0.0  # seconds a token
        self._drafted = 0.0

    def propose(self, tokens: Sequence[int]) -> list[int]:
        """Guess what comes after `tokens`; [] where nothing repeats or drafts do not pay at present."""
        self._index(tokens)
        if self._pause > 0:
            self._pause -= 1
            return []
        at = self._seen.get(tuple(tokens[-NGRAM:]))
        if at is None or not self._plain:  # without a plain step there is nothing to compare with
            return []
        known = list(tokens[at : at + self._length])
        while len(known) < self._length:  # the guess is guessed on from, as a period repeats
            known += known[: self._length - len(known)]
        return known

    def observe(self, n_drafted: int, n_accepted: int, seconds: float) -> None:
        """Learn from a step that took so long for one token and `n_accepted` right guesses of `n_drafted`."""
        rate = seconds / (1 + n_accepted)
        if not n_drafted:
            self._plain = _mean(self._plain, rate)
            return
        self._drafted = _mean(self._drafted, rate)
        if n_accepted == n_drafted:
            self._length = min(2 * self._length, LONGEST)
        else:
            self._length = max(SHORTEST, min(self._length, n_accepted + 1))
        if self._drafted > self._plain:
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
            self._drafted = 0.0
        elif n_accepted == n_drafted:
            self._next_pause = PAUSE

    def _index(self, tokens: Sequence[int]) -> None:
        """Remember every n-gram that has a continuation, the latest place winning."""
        for end in range(max(NGRAM, self._n_indexed), len(tokens)):
            self._seen[tuple(tokens[end - NGRAM : end])] = end
        self._n_indexed = len(tokens)


def _mean(old: float, new: float) -> float:
    return KEEP * old + (1 - KEEP) * new if old else new
