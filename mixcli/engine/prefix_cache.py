"""The prefix cache: which slots of the KV cache hold which tokens, for running requests and for later ones.

llama.cpp tags each cell of its unified cache with the sequences that it belongs to; a slot is one such sequence id. Sharing a prefix
costs no cell and no copy, so what is kept here is only which slot holds what. Nothing in this module touches llama.cpp: it decides, and
the engine carries out what `take_operations` returns, in order, before the next decode. A live slot belongs to a running request; a
retained one is kept for the next request, and is evicted, the longest unused first, when cells or slots run short.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mixcli.engine.token_tree import PrefixMatch, Tokens, TokenTree, common_prefix


@dataclass(frozen=True)
class Copy:
    """Let slot `target` hold the first `n_tokens` tokens of slot `source` too."""

    source: int
    target: int
    n_tokens: int


@dataclass(frozen=True)
class Truncate:
    """Let a slot forget all but its first `n_tokens` tokens."""

    slot: int
    n_tokens: int


@dataclass(frozen=True)
class Save:
    """Write what a slot holds to disk, before it is evicted."""

    slot: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Clear:
    """Forget everything, and begin with the first cell again."""


Operation = Copy | Truncate | Save | Clear


def _always(slot: int, n_tokens: int) -> bool:  # noqa: ARG001  # the parameters of `can_continue`
    return True


class PrefixCache:
    """Manages `n_cells` cells (tokens) and `n_slots` sequence ids.

    `can_continue` tells of a slot whether a text may continue after its first tokens: llama.cpp may have dropped what is outside the
    window of a sliding-window model, and a prefix that ends earlier would need it again.
    """

    def __init__(
        self, n_cells: int, n_slots: int, can_continue: Callable[[int, int], bool] = _always
    ) -> None:
        self.n_cells = n_cells
        self._can_continue = can_continue
        self._tree = TokenTree()
        self._free = list(range(n_slots - 1, -1, -1))
        self._retained: dict[int, bool] = {}  # slot: to be saved; the longest unused first
        self._operations: list[Operation] = []

    @property
    def n_used(self) -> int:
        """Cells that some slot holds."""
        return self._tree.n_used

    @property
    def n_free(self) -> int:
        """Cells that no slot holds."""
        return self.n_cells - self.n_used

    @property
    def n_slots_left(self) -> int:
        """Slots that are available: the free ones, and those that would be evicted for it."""
        return len(self._free) + len(self._retained)

    @property
    def n_retained(self) -> int:
        """Slots kept for a request with the same prefix."""
        return len(self._retained)

    def length(self, slot: int) -> int:
        """Return the number of tokens that a slot holds."""
        return self._tree.length(slot)

    def n_own(self, slot: int) -> int:
        """Return how many tokens at the end of a slot no other slot holds."""
        return self._tree.n_own(slot)

    def tokens(self, slot: int) -> Tokens:
        """Return the tokens that a slot holds."""
        return self._tree.tokens(slot)

    def to_save(self) -> list[Save]:
        """Return the retained slots to save before the process ends."""
        return [Save(slot, tuple(self.tokens(slot))) for slot, saved in self._retained.items() if saved]

    def take_operations(self) -> list[Operation]:
        """Return what llama.cpp has to do, in order, that was decided since the last call."""
        operations, self._operations = self._operations, []
        return operations

    def check(self) -> None:
        """Raise AssertionError where tree and slots contradict each other; for tests."""
        slots = self._tree.check()
        assert self.n_used <= self.n_cells
        assert slots >= self._retained.keys()
        assert slots.isdisjoint(self._free)
        assert len(set(self._free)) == len(self._free)

    # live slots

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many of the first tokens are in the cache; the last token never counts, because its logits are needed."""
        match = self._tree.find(tokens)
        return match.n_tokens if self._source(match) is not None else 0

    def admit(self, tokens: Sequence[int]) -> tuple[int, int] | None:
        """Return a live slot that begins with the longest known prefix of `tokens`, and that prefix's length; None when no slot is left."""
        match = self._tree.find(tokens)
        source = self._source(match)
        n_shared = match.n_tokens if source is not None else 0
        node = self._tree.split(match) if n_shared else None
        slot = self._take_slot(spare=source)
        if slot is None:
            return None
        if slot != source:
            if source is not None:
                self._operations.append(Copy(source, slot, n_shared))
                self._touch(source)
            self._tree.enter(slot, node, n_shared)
        else:
            self.truncate(slot, n_shared)
        return slot, n_shared

    def admit_alone(self, tokens: Sequence[int], kept: int | None, step: int) -> tuple[int, int]:
        """Return a live slot in a cache that holds nothing else, and how many tokens it holds.

        These are what the retained slot `kept` shares with `tokens`, in whole steps; with None, or where nothing is shared, the slot
        begins with the first cell. No other slot may be live.
        """
        n_shared = 0
        if kept is not None:
            n_shared = min(common_prefix(self.tokens(kept), list(tokens)), len(tokens) - 1) // step * step
            n_shared = n_shared if self._can_continue(kept, n_shared) else 0
        for slot in list(self._retained):
            if slot != kept or not n_shared:
                self._evict(slot)
        if kept is not None and n_shared:
            del self._retained[kept]
            self.truncate(kept, n_shared)
            return kept, n_shared
        self._operations.append(Clear())
        slot = self._free.pop()
        self._tree.enter(slot)
        return slot, 0

    def open(self) -> int | None:
        """Return a live slot that holds nothing yet; None when no slot is left."""
        slot = self._take_slot(spare=None)
        if slot is not None:
            self._tree.enter(slot)
        return slot

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Note that a live slot holds further tokens, which were just computed."""
        self._tree.extend(slot, tokens)

    def truncate(self, slot: int, n_tokens: int) -> int:
        """Let a slot forget all but its first `n_tokens` tokens, or all where no text may continue after these; return how many it holds."""
        if self.length(slot) > n_tokens:
            n_tokens = n_tokens if self._can_continue(slot, n_tokens) else 0
            self._tree.truncate(slot, n_tokens)
            self._operations.append(Truncate(slot, n_tokens))
        return self.length(slot)

    def release(self, slot: int) -> None:
        """Free a slot and forget everything that it holds."""
        self._tree.truncate(slot, 0)
        self._operations.append(
            Truncate(slot, 0)
        )  # also an empty one: a decode that failed may have left something
        self._tree.remove(slot)
        self._retained.pop(slot, None)
        self._free.append(slot)

    def fork(self, slot: int, n_slots: int) -> list[int]:
        """Return up to `n_slots` slots that hold what a live one holds, for one decode; fewer, or none, where not so many are left."""
        taken: list[int] = []
        while len(taken) < n_slots and (other := self._take_slot(spare=None)) is not None:
            taken.append(other)
        self._operations += [Copy(slot, other, self.length(slot)) for other in taken]
        return taken

    def release_forks(self, slots: Sequence[int]) -> None:
        """Free the slots that `fork` returned."""
        self._operations += [Truncate(slot, 0) for slot in slots]
        self._free += slots

    # retained slots

    def retain(self, slot: int, *, save: bool = False) -> None:
        """Keep what a finished request computed for later ones; release a slot that holds nothing unique.

        Retained slots that hold a beginning of it, such as the turns before, are released too.
        """
        for other in self._tree.prefixes(slot, self._retained):
            self.release(other)
        if not save and (self.length(slot) == 0 or self._tree.is_shared(slot)):
            self.release(slot)
        else:
            self._retained[slot] = save

    def retain_prefix(self, slot: int, n_prompt: int, *, n_awaited: int = 0, save: bool = False) -> None:
        """Keep only the prefix that other requests share: up to the last fork, or the whole prompt if it has no fork.

        A request that waits shares the first `n_awaited` tokens.
        """
        if n_own := self._tree.n_own(slot):
            n_tokens = self.length(slot)
            n_shared = max(n_tokens - n_own, min(n_awaited, n_tokens))
            self.truncate(slot, n_shared or min(n_prompt, n_tokens))
        self.retain(slot, save=save)

    def beginnings(self, slot: int) -> list[int]:
        """Return the retained slots, but those that are to be saved, which hold a beginning of this one and nothing else."""
        return self._tree.prefixes(slot, [other for other, save in self._retained.items() if not save])

    def is_retained(self, slot: int) -> bool:
        """Return whether a slot is still retained."""
        return slot in self._retained

    def make_room(self, n_tokens: int) -> bool:
        """Evict retained slots until so many cells are free; False, and nothing is evicted, where that is not enough."""
        if not self.has_room(n_tokens):
            return False
        while self.n_free < n_tokens:
            self._evict(next(iter(self._retained)))
        return True

    def has_room(self, n_tokens: int) -> bool:
        """Return whether so many cells are free, or would be with all retained slots evicted."""
        return self.n_free >= n_tokens or self.n_free + self._tree.count_only(self._retained) >= n_tokens

    def _source(self, match: PrefixMatch) -> int | None:
        """Return a slot that a prefix can be taken from, a live one where there is one; None for none."""
        holders = [slot for slot in match.node.slots if self._can_continue(slot, match.n_tokens)]
        return min(holders, key=lambda slot: slot in self._retained, default=None)

    def _touch(self, slot: int) -> None:
        if slot in self._retained:
            self._retained[slot] = self._retained.pop(slot)

    def _take_slot(self, spare: int | None) -> int | None:
        """Return a free slot, evicting the longest unused but `spare`; `spare` itself, no longer retained, when there is no other."""
        if self._free:
            return self._free.pop()
        victim = next((slot for slot in self._retained if slot != spare), None)
        if victim is not None:
            self._evict(victim)
            return self._free.pop()
        if spare is not None and spare in self._retained:
            del self._retained[spare]
            return spare
        return None

    def _evict(self, slot: int) -> None:
        if self._retained[slot]:
            self._operations.append(Save(slot, tuple(self.tokens(slot))))
        self.release(slot)
