"""The prefix cache: a radix tree of which KV cache cells hold which tokens, for live and parked sequences.

llama.cpp tags each cell of its unified cache with the sequences that it belongs to; a slot is one such sequence id. Sharing a prefix
costs no cell and no copy, so what is kept here is only who holds what. Nothing in this module touches llama.cpp: it decides, and
the engine carries out what `take_operations` gives, in order, before the next decode. A live slot belongs to a running request; a
parked one is kept for the next request, and is evicted, the longest unused first, when cells or slots run short.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Tokens = list[int]


@dataclass(frozen=True)
class Copy:
    """Let slot `target` hold the first `n_tokens` tokens of slot `source` too."""

    source: int
    target: int
    n_tokens: int


@dataclass(frozen=True)
class Cut:
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


Operation = Copy | Cut | Save | Clear


class _Node:
    """A run of tokens, each in a cell of its own, that all of `slots` hold."""

    __slots__ = ("children", "parent", "slots", "tokens")

    def __init__(self, tokens: Tokens, parent: "_Node | None", slots: set[int]) -> None:
        self.tokens, self.parent, self.slots = tokens, parent, slots
        self.children: list[_Node] = []


class PrefixCache:
    """Holds the books of `n_cells` cells (tokens) and `n_slots` sequence ids."""

    def __init__(self, n_cells: int, n_slots: int) -> None:
        self.n_cells = n_cells
        self.n_used = 0
        self._root = _Node([], None, set())
        self._free = list(range(n_slots - 1, -1, -1))
        self._ends: dict[int, _Node] = {}
        self._lengths: dict[int, int] = {}
        self._parked: dict[int, bool] = {}  # slot: to be saved; the longest unused first
        self._operations: list[Operation] = []

    @property
    def n_free(self) -> int:
        """Cells that no slot holds."""
        return self.n_cells - self.n_used

    @property
    def n_slots_left(self) -> int:
        """Slots that can be had: the free ones, and those that would be evicted for it."""
        return len(self._free) + len(self._parked)

    @property
    def n_parked(self) -> int:
        """Slots kept for a request with the same prefix."""
        return len(self._parked)

    def length(self, slot: int) -> int:
        """Return the number of tokens that a slot holds."""
        return self._lengths.get(slot, 0)

    def tokens(self, slot: int) -> Tokens:
        """Return the tokens that a slot holds."""
        return [token for node in reversed(self._path(slot)) for token in node.tokens]

    def to_save(self) -> list[Save]:
        """Return the parked slots to save before the process ends."""
        return [Save(slot, tuple(self.tokens(slot))) for slot, saved in self._parked.items() if saved]

    def take_operations(self) -> list[Operation]:
        """Return what llama.cpp must be told since the last call."""
        operations, self._operations = self._operations, []
        return operations

    # live slots

    def match(self, tokens: Sequence[int]) -> int:
        """Return how many of the first tokens are there already; the last token never counts, because its logits are needed."""
        return self._find(tokens)[2]

    def admit(self, tokens: Sequence[int]) -> tuple[int, int] | None:
        """Return a live slot that begins with the longest known prefix of `tokens`, and that prefix's length; None when no slot is left."""
        node, within, n_shared = self._find(tokens)
        if n_shared and within < len(node.tokens):
            node = self._split(node, within)
        source = self._holder(node) if n_shared else None
        slot = self._take_slot(spare=source)
        if slot is None:
            return None
        if slot != source:
            if source is not None:
                self._operations.append(Copy(source, slot, n_shared))
                self._touch(source)
            self._enter(slot, node, n_shared)
        else:
            self.truncate(slot, n_shared)
        return slot, n_shared

    def open(self) -> int | None:
        """Return a live slot that holds nothing yet; None when no slot is left."""
        slot = self._take_slot(spare=None)
        if slot is not None:
            self._enter(slot, self._root, 0)
        return slot

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Note that a live slot holds further tokens, which were just computed."""
        if not tokens:
            return
        node = self._ends[slot]
        if node.parent is None or len(node.slots) > 1:
            child = _Node(list(tokens), node, {slot})
            node.children.append(child)
            self._ends[slot] = child
        else:
            node.tokens += tokens
        self._lengths[slot] += len(tokens)
        self.n_used += len(tokens)

    def truncate(self, slot: int, n_tokens: int) -> None:
        """Let a slot forget all but its first `n_tokens` tokens."""
        if self._lengths[slot] <= n_tokens:
            return
        node, end = self._ends[slot], self._lengths[slot]
        while end - len(node.tokens) >= n_tokens and node.parent is not None:
            end -= len(node.tokens)
            node = self._leave(node, slot)
        if end > n_tokens:
            keep = len(node.tokens) - (end - n_tokens)
            if len(node.slots) == 1:
                self.n_used -= len(node.tokens) - keep
                del node.tokens[keep:]
            else:
                upper = self._split(node, keep)
                self._leave(node, slot)
                node = upper
        self._ends[slot], self._lengths[slot] = node, n_tokens
        self._operations.append(Cut(slot, n_tokens))

    def release(self, slot: int) -> None:
        """Forget everything that a slot holds, and release it."""
        if self._lengths[slot]:
            self.truncate(slot, 0)
        else:  # a decode that failed may have left something
            self._operations.append(Cut(slot, 0))
        del self._ends[slot], self._lengths[slot]
        self._parked.pop(slot, None)
        self._free.append(slot)

    # parked slots

    def retain(self, slot: int, *, save: bool = False) -> None:
        """Keep what a finished request computed for later ones; release a slot that holds nothing unique.

        Parked slots that hold a beginning of it, such as the turns before, are given back too.
        """
        above = self._path(slot)
        for other in [other for other in self._parked if self._ends[other] in above]:
            self.release(other)
        if not save and (self._lengths[slot] == 0 or len(self._ends[slot].slots) > 1):
            self.release(slot)
        else:
            self._parked[slot] = save

    def park_prefix(self, slot: int, n_prompt: int, *, save: bool = False) -> None:
        """Keep only the prefix that other requests share: up to the last fork, or the whole prompt if it has no fork."""
        node = self._ends[slot]
        if node.parent is not None and len(node.slots) == 1:
            before = self._lengths[slot] - len(node.tokens)
            self.truncate(slot, before or min(n_prompt, self._lengths[slot]))
        self.retain(slot, save=save)

    def admit_alone(self, tokens: Sequence[int], kept: int | None, step: int) -> tuple[int, int]:
        """Return a live slot in a cache that holds nothing else, and how many tokens it holds.

        These are what the parked slot `kept` shares with `tokens`, in whole steps; with None, or where nothing is shared, the slot
        begins with the first cell. No other slot may be live.
        """
        n_shared = 0
        if kept is not None:
            n_shared = min(common_prefix(self.tokens(kept), list(tokens)), len(tokens) - 1) // step * step
        for slot in list(self._parked):
            if slot != kept or not n_shared:
                self._evict(slot)
        if kept is not None and n_shared:
            del self._parked[kept]
            self.truncate(kept, n_shared)
            return kept, n_shared
        self._operations.append(Clear())
        slot = self._free.pop()
        self._enter(slot, self._root, 0)
        return slot, 0

    def is_parked(self, slot: int) -> bool:
        """Return whether a slot is still parked."""
        return slot in self._parked

    def make_room(self, n_tokens: int) -> bool:
        """Evict parked slots until so many cells are free; False, and nothing is evicted, where that is not enough."""
        if not self.has_room(n_tokens):
            return False
        while self.n_free < n_tokens:
            self._evict(next(iter(self._parked)))
        return True

    def has_room(self, n_tokens: int) -> bool:
        """Whether so many cells are free, or would be with all parked slots evicted."""
        return self.n_free >= n_tokens or self.n_free + self._evictable() >= n_tokens

    # slots for a moment

    def fork(self, slot: int, n_slots: int) -> list[int]:
        """Return up to `n_slots` slots that hold what a live one holds, for one decode; fewer, or none, where there are not so many."""
        taken: list[int] = []
        while len(taken) < n_slots and (other := self._take_slot(spare=None)) is not None:
            taken.append(other)
        self._operations += [Copy(slot, other, self._lengths[slot]) for other in taken]
        return taken

    def release_forks(self, slots: Sequence[int]) -> None:
        """Take back what `fork` gave."""
        self._operations += [Cut(slot, 0) for slot in slots]
        self._free += slots

    # inside

    def _find(self, tokens: Sequence[int]) -> tuple[_Node, int, int]:
        """Return the node where the longest known prefix ends, how many of its tokens belong to it, and the prefix's length."""
        limit = len(tokens) - 1
        node, n = self._root, 0
        while True:
            best, longest = None, 0
            for child in node.children:
                if n < limit and child.tokens[0] == tokens[n]:
                    n_equal = common_prefix(child.tokens, tokens[n:limit])
                    if n_equal > longest:
                        best, longest = child, n_equal
            if best is None:
                return node, len(node.tokens), n
            node, n = best, n + longest
            if longest < len(best.tokens):
                return node, longest, n

    def _split(self, node: _Node, at: int) -> _Node:
        """Make two nodes of one; return the upper, with its first `at` tokens."""
        assert node.parent is not None
        upper = _Node(node.tokens[:at], node.parent, set(node.slots))
        node.parent.children[node.parent.children.index(node)] = upper
        upper.children = [node]
        node.tokens, node.parent = node.tokens[at:], upper
        return upper

    def _path(self, slot: int) -> list[_Node]:
        """Return the nodes that a slot holds, from its end to the root."""
        nodes, node = [], self._ends[slot]
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes

    def _enter(self, slot: int, node: _Node, length: int) -> None:
        self._ends[slot], self._lengths[slot] = node, length
        for above in self._path(slot):
            above.slots.add(slot)

    def _leave(self, node: _Node, slot: int) -> _Node:
        """Take a slot out of a node, which goes when it was the last; return the parent."""
        assert node.parent is not None
        node.slots.discard(slot)
        if not node.slots:
            node.parent.children.remove(node)
            self.n_used -= len(node.tokens)
        return node.parent

    def _holder(self, node: _Node) -> int:
        """Return a slot of a node, a live one where there is one."""
        return min(node.slots, key=lambda slot: slot in self._parked)

    def _touch(self, slot: int) -> None:
        if slot in self._parked:
            self._parked[slot] = self._parked.pop(slot)

    def _take_slot(self, spare: int | None) -> int | None:
        """Return a free slot, evicting the longest unused but `spare`; `spare` itself, no longer parked, when there is no other."""
        if self._free:
            return self._free.pop()
        victim = next((slot for slot in self._parked if slot != spare), None)
        if victim is not None:
            self._evict(victim)
            return self._free.pop()
        if spare is not None and spare in self._parked:
            del self._parked[spare]
            return spare
        return None

    def _evict(self, slot: int) -> None:
        if self._parked[slot]:
            self._operations.append(Save(slot, tuple(self.tokens(slot))))
        self.release(slot)

    def check(self) -> None:
        """Raise AssertionError where the books contradict themselves; for tests."""
        slots, n_used = set(self._lengths), 0
        todo = [(self._root, 0)]
        while todo:
            node, above = todo.pop()
            n = above + len(node.tokens)
            if node.parent is not None:
                n_used += len(node.tokens)
                assert node.tokens, "a node has tokens"
                assert node.slots, "a node belongs to a slot"
                assert node.slots <= (node.parent.slots or slots), (
                    "whoever holds a node holds what is above it"
                )
            for slot in node.slots & {slot for slot, end in self._ends.items() if end is node}:
                assert self._lengths[slot] == n, "a slot is as long as the way to its end"
            todo += [(child, n) for child in node.children]
        assert n_used == self.n_used <= self.n_cells
        assert self._ends.keys() == slots >= self._parked.keys()
        assert slots.isdisjoint(self._free)
        assert len(set(self._free)) == len(self._free)

    def _evictable(self) -> int:
        """Count the cells that only parked slots hold."""
        count, nodes = 0, list(self._root.children)
        while nodes:
            node = nodes.pop()
            if node.slots <= self._parked.keys():
                count += len(node.tokens)
            nodes += node.children
        return count


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two lists begin with alike."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
