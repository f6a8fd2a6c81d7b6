"""How long a draft should be: as long as the expected tokens per second grow, by what steps cost and how often guesses are right.

What a step of so many tokens costs is measured for all requests of an engine (step_costs.py), how often a guess is right for each answer; the tokens
that a draft should then bring are those of profiles/acceptance.py.
"""

from mixcli.engine.step_costs import StepCosts
from profiles.acceptance import expected_tokens

SHORTEST, LONGEST = 2, 64  # of a draft
PAUSE, LONGEST_PAUSE = 16, 512  # plain steps after drafts stopped to pay
KEEP = 0.8  # share of the old value in a running mean
PRIOR_ACCEPTANCE = 0.9  # that a guess is right, before any was seen


class DraftPace:
    """What was seen of one answer, and what follows from it."""

    def __init__(self, costs: StepCosts) -> None:
        self._costs = costs
        self._pause = 0
        self._next_pause = PAUSE
        self._right = PRIOR_ACCEPTANCE
        self._guess = 0.0  # seconds that a guess takes before it is verified

    def next_length(self, n_others: int = 0) -> int:
        """Return how long the next draft is to be beside tokens of `n_others` other requests; 0 where drafts do not pay at present."""
        if self._pause > 0:
            self._pause -= 1
            if not self._pause:
                self._right = PRIOR_ACCEPTANCE  # the text may have become another: one more try
            return 0
        return self._length(n_others) if self._costs.is_known else 0

    def observe(
        self, n_drafted: int, n_accepted: int, n_others: int = 0, seconds_drafting: float = 0.0
    ) -> None:
        """Learn from a draft of which so many guesses were right, and from the seconds that it took to make it."""
        if not n_drafted:
            return
        self._guess = _mean(self._guess, seconds_drafting / n_drafted)
        n_tried = n_accepted + (n_accepted < n_drafted)
        keep = KEEP**n_tried  # each guess that was looked at counts
        self._right = keep * self._right + (1 - keep) * n_accepted / n_tried
        if self._costs.is_known and self._length(n_others) == 0:
            self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, LONGEST_PAUSE)
        elif n_accepted == n_drafted:
            self._next_pause = PAUSE

    def _length(self, n_others: int) -> int:
        """Return the length of a draft that gives all requests together the most tokens per second; 0 where none does."""

        def rate(n: int) -> float:
            seconds = self._costs.seconds(1 + n_others + n) + n * self._guess
            return (expected_tokens(self._right, n) + n_others) / seconds

        best = max((0, *range(SHORTEST, LONGEST + 1)), key=rate)
        return best if rate(best) > rate(0) else 0


def _mean(old: float, new: float) -> float:
    return KEEP * old + (1 - KEEP) * new if old else new
