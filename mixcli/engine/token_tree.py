"""A radix tree of token lists: which slots hold which tokens, each common beginning stored once."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

Tokens = list[int]


class TokenNode:
    """A run of tokens, each in a cell of its own, that all of `slots` hold."""

    __slots__ = ("children", "parent", "slots", "tokens")

    def __init__(self, tokens: Tokens, parent: "TokenNode | None", slots: set[int]) -> None:
        self.tokens, self.parent, self.slots = tokens, parent, slots
        self.children: list[TokenNode] = []


@dataclass(frozen=True)
class PrefixMatch:
    """Where the longest known prefix ends: after the first `within` tokens of `node`; it has `n_tokens` in all."""

    node: TokenNode
    within: int
    n_tokens: int


class TokenTree:
    """Holds the tokens of slots; `n_used` counts the cells, one for each token that is stored."""

    def __init__(self) -> None:
        self.n_used = 0
        self._root = TokenNode([], None, set())
        self._ends: dict[int, TokenNode] = {}
        self._lengths: dict[int, int] = {}

    def length(self, slot: int) -> int:
        """Return the number of tokens that a slot holds."""
        return self._lengths.get(slot, 0)

    def tokens(self, slot: int) -> Tokens:
        """Return the tokens that a slot holds."""
        return [token for node in reversed(self._path(slot)) for token in node.tokens]

    def is_shared(self, slot: int) -> bool:
        """Return whether another slot holds all tokens of this one."""
        return len(self._ends[slot].slots) > 1

    def n_own(self, slot: int) -> int:
        """Return how many tokens at the end of a slot no other slot holds."""
        node = self._ends[slot]
        return len(node.tokens) if node.parent is not None and len(node.slots) == 1 else 0

    def prefixes(self, slot: int, others: Collection[int]) -> list[int]:
        """Return those of the other slots that hold a beginning of this one and nothing else."""
        above = self._path(slot)
        return [other for other in others if self._ends[other] in above]

    def find(self, tokens: Sequence[int]) -> PrefixMatch:
        """Return the longest known prefix; the last token never counts, because its logits are needed."""
        limit = len(tokens) - 1
        best = PrefixMatch(self._root, 0, 0)
        todo = [(self._root, 0)]
        while todo:  # children may begin alike, where slots were extended with the same tokens
            node, n = todo.pop()
            for child in node.children:
                if n < limit and child.tokens[0] == tokens[n]:
                    n_equal = common_prefix(child.tokens, tokens[n:limit])
                    if n + n_equal > best.n_tokens:
                        best = PrefixMatch(child, n_equal, n + n_equal)
                    if n_equal == len(child.tokens):
                        todo.append((child, n + n_equal))
        return best

    def split(self, match: PrefixMatch) -> TokenNode:
        """Return the node that ends where the match does, cutting one in two for it; it may be the root."""
        if match.n_tokens and match.within < len(match.node.tokens):
            return self._split(match.node, match.within)
        return match.node

    def enter(self, slot: int, node: TokenNode | None = None, length: int = 0) -> None:
        """Add a slot that holds the `length` tokens down to a node; none without a node."""
        self._ends[slot], self._lengths[slot] = node or self._root, length
        for above in self._path(slot):
            above.slots.add(slot)

    def extend(self, slot: int, tokens: Sequence[int]) -> None:
        """Add tokens after those of a slot."""
        if not tokens:
            return
        node = self._ends[slot]
        if node.parent is None or len(node.slots) > 1:
            child = TokenNode(list(tokens), node, {slot})
            node.children.append(child)
            self._ends[slot] = child
        else:
            node.tokens += tokens
        self._lengths[slot] += len(tokens)
        self.n_used += len(tokens)

    def truncate(self, slot: int, n_tokens: int) -> bool:
        """Drop all but the first `n_tokens` tokens of a slot; False when it has no more than these."""
        if self._lengths[slot] <= n_tokens:
            return False
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
        return True

    def remove(self, slot: int) -> None:
        """Take out a slot that holds no tokens any more."""
        assert not self._lengths[slot], "truncate it first"
        del self._ends[slot], self._lengths[slot]

    def count_only(self, slots: Collection[int]) -> int:
        """Count the cells that these slots hold and no other does."""
        held = set(slots)
        count, nodes = 0, list(self._root.children)
        while nodes:
            node = nodes.pop()
            if node.slots <= held:
                count += len(node.tokens)
            nodes += node.children
        return count

    def check(self) -> set[int]:
        """Raise AssertionError where the tree contradicts itself; return the slots. For tests."""
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
                    "a slot that holds a node holds the nodes above it"
                )
            for slot in node.slots & {slot for slot, end in self._ends.items() if end is node}:
                assert self._lengths[slot] == n, "a slot is as long as the way to its end"
            todo += [(child, n) for child in node.children]
        assert n_used == self.n_used
        assert self._ends.keys() == slots
        return slots

    @staticmethod
    def _split(node: TokenNode, at: int) -> TokenNode:
        """Make two nodes of one; return the upper, with its first `at` tokens."""
        assert node.parent is not None
        upper = TokenNode(node.tokens[:at], node.parent, set(node.slots))
        node.parent.children[node.parent.children.index(node)] = upper
        upper.children = [node]
        node.tokens, node.parent = node.tokens[at:], upper
        return upper

    def _path(self, slot: int) -> list[TokenNode]:
        """Return the nodes that a slot holds, from its end to the root."""
        nodes, node = [], self._ends[slot]
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes

    def _leave(self, node: TokenNode, slot: int) -> TokenNode:
        """Take a slot out of a node, which goes when it was the last; return the parent."""
        assert node.parent is not None
        node.slots.discard(slot)
        if not node.slots:
            node.parent.children.remove(node)
            self.n_used -= len(node.tokens)
        return node.parent


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
