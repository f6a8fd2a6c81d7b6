"""How long a draft should be: measured as an answer goes, so that the expected tokens per second are most.

A drafted token costs time, in a mixture of experts and on a slow processor much of what a plain one costs. So what a step takes, what each
draft adds, and how often a guess is right are measured, and give the tokens that drafts of each length should bring (profiles/acceptance.py).
"""

from profiles.acceptance import expected_tokens

SHORTEST, LONGEST = 2, 24  # of a draft
PAUSE, LONGEST_PAUSE = 16, 512  # plain steps after drafts stopped to pay
KEEP = 0.8  # share of the old value in a running mean
PRIOR_ACCEPTANCE = 0.9  # that a guess is right, before any was seen
COST = 0.3  # of a plain step that a guess adds, before any was seen


class DraftPace:
    """What was measured of one answer, and what follows from it."""

    def __init__(self) -> None:
        self._pause = 0
        self._next_pause = PAUSE
        self._plain = 0.0  # seconds of a step without drafts
        self._cost = COST  # of each guess, in plain steps
        self._right = PRIOR_ACCEPTANCE

    def next_length(self) -> int:
        """Return how long the next draft is to be; 0 where drafts do not pay at present."""
        if self._pause > 0:
            self._pause -= 1
            if not self._pause:
                self._right = PRIOR_ACCEPTANCE  # the text may have become another: one more try
            return 0
        return self._length() if self._plain else 0  # without a plain step there is nothing to compare with

    def observe(self, n_drafted: int, n_accepted: int, seconds: float) -> None:
        """Learn from a step that took so long, its draft included, for one token and `n_accepted` right guesses of `n_drafted`."""
        if not n_drafted:
            self._plain = _mean(self._plain, seconds)
            return
        if self._plain <= 0:
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
            return expected_tokens(self._right, n) / (1 + n * self._cost)

        best = max((0, *range(SHORTEST, LONGEST + 1)), key=rate)
        return best if rate(best) > rate(0) else 0


def _mean(old: float, new: float) -> float:
    return KEEP * old + (1 - KEEP) * new if old else new
