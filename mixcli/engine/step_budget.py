"""What one decode is limited by, in one object that every decision of a step draws from."""

from dataclasses import dataclass

from mixcli.engine.prefix_cache import PrefixCache


@dataclass(frozen=True, slots=True)
class Cost:
    """What a part of a step takes: tokens of the batch (each a cell), borrowed slots, ids of sequences, and rows of logits beyond its own."""

    tokens: int
    slots: int = 0
    ids: int = 1
    rows: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.tokens + other.tokens, self.slots + other.slots, self.ids + other.ids, self.rows + other.rows
        )


class StepBudget:
    """What one decode still has: `tokens` of the batch, `ids` of sequences on them, `rows` of logits, and the cache's cells and slots.

    One row for each running sequence is not counted: `rows` are those of drafts and labels. `cells` are drawn by the step, `promised` are
    those of the whole prompts that it begins.
    """

    def __init__(self, cache: PrefixCache, *, tokens: int, ids: int, rows: int) -> None:
        self._cache = cache
        self._n_tokens = self.tokens = tokens
        self.ids, self.rows, self.cells, self.promised = ids, rows, 0, 0

    def has(self, cost: Cost) -> bool:
        """Return whether so much is left."""
        return (
            cost.tokens <= self.tokens
            and cost.ids <= self.ids
            and cost.rows <= self.rows
            and cost.slots <= self._cache.n_slots_left
            and self._cache.has_room(self.cells + cost.tokens)
        )

    def take(self, cost: Cost) -> bool:
        """Draw so much, which may evict retained slots; False, and nothing is drawn, where it is not left."""
        if not (self.has(cost) and self._cache.make_room(self.cells + cost.tokens)):
            return False
        self.cells += cost.tokens
        self.tokens -= cost.tokens
        self.ids -= cost.ids
        self.rows -= cost.rows
        return True

    def promise(self, n_cells: int, *, needed: int = 0, spare: int = 0) -> bool:
        """Promise cells to a whole prompt, beside those drawn and promised before or `needed` by others, whichever are more, and `spare`.

        False, and nothing is promised, where not so many are left. What a step computes of the prompt is drawn by `take`.
        """
        if not self._cache.make_room(n_cells + max(self.cells + self.promised, needed) + spare):
            return False
        self.promised += n_cells
        return True

    def limit(self, n_tokens: int) -> None:
        """Lower the number of tokens of the whole step, those included that are drawn already."""
        self.tokens -= max(0, self._n_tokens - n_tokens)
        self._n_tokens = min(self._n_tokens, n_tokens)
