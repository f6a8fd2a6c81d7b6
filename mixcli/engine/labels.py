"""Score a choice among labels from logits, without sampling.

The labels' tokens form a tree below the prompt, kept as branches: runs of tokens that no label leaves in their middle. What is needed is
the logits after the prompt and after each token that a label continues from. A label's score is the sum of the log-probabilities of all its
tokens; of a label that another one begins with ("pos", "positive") the end of the answer is a part. So the labels are events that exclude
each other, and their probabilities are normalised over the labels.

There are two ways to compute a branch, and the scheduler chooses: a *fan*, several branches with all that is below them in one decode, each
leaf in a slot that is borrowed for the moment; or as the *path* in the request's own slot, piece by piece over as many steps as it takes.
A fan is fast, a path needs no more than one token a step and one cell a token, so every tree is computed in the end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.logprobs import log_sum
from mixcli.engine.token_tree import common_prefix

TokenIds = NDArray[np.int64]


class Branch:
    """A run of tokens below its parent. `depth` tokens lie between the run and the prompt; `label` is the one that ends with the run.

    `n_inner` tokens of the run are continued by some label, so their logits are needed; those after the first `n_seen` are known.
    Over the branch and all below it: `n_open` logits are missing, `n_tokens` would be computed in `n_slots` slots, `n_ids` is the sum over
    the tokens of the slots that share each.
    """

    __slots__ = (
        "children",
        "depth",
        "label",
        "log_end",
        "log_probability",
        "n_ids",
        "n_inner",
        "n_open",
        "n_seen",
        "n_slots",
        "n_tokens",
        "parent",
        "tokens",
    )

    def __init__(self, tokens: tuple[int, ...], depth: int, parent: "Branch | None") -> None:
        self.tokens, self.depth, self.parent = tokens, depth, parent
        self.children: list[Branch] = []
        self.label: int | None = None
        self.log_probability = self.log_end = 0.0
        self.n_inner = self.n_seen = self.n_open = self.n_tokens = self.n_slots = self.n_ids = 0

    @property
    def end(self) -> int:
        """Tokens between the prompt and the end of what is computed of the run."""
        return self.depth + (self.n_inner if self.parent else 0)

    def measure(self) -> None:
        """Count what the branch takes, once its children are counted."""
        if self.parent is None:
            self.n_inner = 1  # the place after the prompt, which the prompt itself computes
        else:
            self.n_inner = len(self.tokens) - (not self.children)
        n_computed = self.n_inner if self.parent else 0
        self.n_open = self.n_inner + sum(child.n_open for child in self.children)
        self.n_tokens = n_computed + sum(child.n_tokens for child in self.children)
        self.n_slots = max(sum(child.n_slots for child in self.children), int(n_computed > 0))
        self.n_ids = n_computed * self.n_slots + sum(child.n_ids for child in self.children)


@dataclass(frozen=True)
class Node:
    """A token of a fan: the `offset`-th of a branch, and which slots of the fan, counted from 0, hold it."""

    branch: Branch
    offset: int
    slots: tuple[int, ...]

    @property
    def token(self) -> int:
        return self.branch.tokens[self.offset]

    @property
    def depth(self) -> int:
        """Tokens between it and the prompt."""
        return self.branch.depth + self.offset


class LabelScores:
    """The scores of one request's labels, complete once all logits that they need were seen; `ends` are the tokens that end an answer.

    `ends_of` has the tokens that end each label, where they are not the same for all; of a label that has none the end does not count.
    """

    def __init__(
        self,
        labels: Sequence[tuple[int, ...]],
        ends: Iterable[int],
        ends_of: Sequence[TokenIds] | None = None,
    ) -> None:
        self._ends_of = ends_of or [np.fromiter(ends, np.int64)] * len(labels)
        self._root = self._at = _tree(labels)
        branches = list(_below(self._root))
        for branch in reversed(branches):  # children come before their parents
            branch.measure()
        self.n_longest = max(
            branch.end for branch in branches
        )  # tokens below the prompt that must fit at once

    @property
    def is_complete(self) -> bool:
        return not self._root.n_open

    # the path in the request's own slot

    def restart(self) -> None:
        """Begin again at the prompt; what was seen stays."""
        self._at = self._root

    def retreat(self) -> int:
        """Go back to where a branch is open; return how many tokens of the path stay."""
        while self._at.parent is not None and not any(child.n_open for child in self._at.children):
            self._at = self._at.parent
        return self._at.end

    def open_branches(self) -> list[Branch]:
        """Return the branches that begin at the end of the path and still need logits."""
        return [child for child in self._at.children if child.n_open]

    def descend(self) -> tuple[int, ...]:
        """Extend the path by the first open branch and return the branch's tokens."""
        self._at = self.open_branches()[0]
        return self._at.tokens[: self._at.n_inner]

    def see_path(self, depth: int, logits: NDArray[np.float32]) -> None:
        """Take the logits after the first `depth` tokens of the path."""
        branch = self._at
        while branch.parent is not None and branch.depth >= depth:
            branch = branch.parent
        self.see(branch, max(0, depth - branch.depth - 1), logits)

    # logits

    def see(self, branch: Branch, offset: int, logits: NDArray[np.float32]) -> None:
        """Take the logits (shape: the vocabulary) after a token of a branch; those that are known already count once."""
        if offset < branch.n_seen:
            return
        assert offset == branch.n_seen, "logits come in the order of the tokens"
        total = log_sum(logits)
        if branch.parent is not None and offset + 1 < len(branch.tokens):
            branch.log_probability += float(logits[branch.tokens[offset + 1]]) - total
        else:
            for child in branch.children:
                child.log_probability += float(logits[child.tokens[0]]) - total
            if branch.label is not None and (ends := self._ends_of[branch.label]).size:
                branch.log_end = log_sum(logits[ends]) - total
        branch.n_seen += 1
        above: Branch | None = branch
        while above is not None:
            above.n_open -= 1
            above = above.parent

    def probabilities(self) -> tuple[float, ...]:
        """Return each label's probability, in the labels' order; they sum to one."""
        return normalized(self.log_probabilities())

    def log_probabilities(self) -> NDArray[np.float64]:
        """Return the log-probability of each label's tokens, shape (n_labels,); each is known once the scores are complete."""
        sums = np.zeros(len(self._ends_of))
        until: dict[Branch | None, float] = {None: 0.0}
        for branch in _below(self._root):
            until[branch] = until[branch.parent] + branch.log_probability
            if branch.label is not None:
                sums[branch.label] = until[branch] + branch.log_end
        return sums


def normalized(log_probabilities: NDArray[np.float64]) -> tuple[float, ...]:
    """Return the probabilities of events of which one occurs, from numbers that differ from their logarithms by one constant."""
    weights = np.exp(log_probabilities - log_probabilities.max())
    return tuple(float(weight) for weight in weights / weights.sum())


def fan(branches: Sequence[Branch]) -> list[Node]:
    """Return all tokens to compute of some branches and what is below them, parents before children."""
    nodes: list[Node] = []
    todo, first = [], 0
    for branch in branches:
        todo.append((branch, first))
        first += branch.n_slots
    todo.reverse()
    while todo:
        branch, first = todo.pop()
        slots = tuple(range(first, first + branch.n_slots))
        nodes += [Node(branch, offset, slots) for offset in range(branch.n_inner)]
        for child in branch.children:
            if child.n_slots:
                todo.append((child, first))
                first += child.n_slots
    return nodes


def _tree(labels: Sequence[tuple[int, ...]]) -> Branch:
    """Build the branches of all labels below a root without tokens. In sorted order a label comes before those that begin with it."""
    root = Branch((), 0, None)
    path = [root]
    before: tuple[int, ...] = ()
    for label in sorted(range(len(labels)), key=labels.__getitem__):
        tokens = labels[label]
        n_equal = common_prefix(before, tokens)
        while path[-1].depth + len(path[-1].tokens) > n_equal:
            lower = path.pop()
            if lower.depth < n_equal:
                path.append(_split(lower, n_equal - lower.depth))
        if len(tokens) > n_equal:
            branch = Branch(tokens[n_equal:], n_equal, path[-1])
            path[-1].children.append(branch)
            path.append(branch)
        path[-1].label = label
        before = tokens
    return root


def _split(lower: Branch, at: int) -> Branch:
    """Make two branches of the newest one; return the upper, with its first `at` tokens."""
    parent = lower.parent
    assert parent is not None
    upper = Branch(lower.tokens[:at], lower.depth, parent)
    parent.children[-1] = upper
    upper.children.append(lower)
    lower.tokens, lower.depth, lower.parent = lower.tokens[at:], lower.depth + at, upper
    return upper


def _below(root: Branch) -> Iterator[Branch]:
    """Walk over a branch and all below it, parents before children, without recursion."""
    todo = [root]
    while todo:
        branch = todo.pop()
        yield branch
        todo += branch.children
