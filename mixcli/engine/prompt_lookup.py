"""Prompt lookup decoding: draft the next tokens from earlier occurrences in the text; lossless.

The last few tokens are looked up among all earlier ones; what followed there is the draft (Saxena, "Prompt Lookup Decoding", 2023).
"""

from collections.abc import Sequence

from mixcli.engine.draft_pace import DraftPace
from mixcli.engine.step_costs import StepCosts

NGRAM = 3  # tokens that must repeat


class PromptLookup:
    """The drafts of one sequence."""

    only_alone = False

    def __init__(self, costs: StepCosts) -> None:
        self._pace = DraftPace(costs)
        self._seen: dict[tuple[int, ...], int] = {}  # n-gram: where its continuation begins
        self._n_indexed = 0

    def propose(self, tokens: Sequence[int], n_others: int = 0) -> list[int]:
        """Guess what comes after `tokens`; [] where nothing repeats or drafts do not pay at present."""
        self._index(tokens)
        length = self._pace.next_length(n_others)
        at = self._seen.get(tuple(tokens[-NGRAM:]))
        if at is None or not length:
            return []
        known = list(tokens[at : at + length])
        while len(known) < length:  # the guess is guessed on from, as a period repeats
            known += known[: length - len(known)]
        return known

    def observe(self, n_drafted: int, n_accepted: int, n_others: int = 0) -> None:
        """Learn from a step with `n_accepted` right guesses of `n_drafted`; only guesses of `propose` count."""
        self._pace.observe(n_drafted, n_accepted, n_others)

    def _index(self, tokens: Sequence[int]) -> None:
        """Remember every n-gram that has a continuation, the latest place winning."""
        for end in range(max(NGRAM, self._n_indexed), len(tokens)):
            self._seen[tuple(tokens[end - NGRAM : end])] = end
        self._n_indexed = len(tokens)
