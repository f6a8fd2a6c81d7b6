"""Which tokens of which sequences go into the next decode. Integers only: no tensor, no clock, no llama.cpp.

A sequence that writes adds one token (and its drafts) to every step; what is left of the batch is filled with pieces of prompts, in order of
arrival. Prompts are packed together, because a mixture of experts reads nearly all its weights for thirty tokens as for four hundred. While somebody writes,
a step takes at most one micro-batch, so that a long prompt of one does not silence the other. A request whose beginning somebody else is
about to compute waits for it.
"""

from collections import deque
from dataclasses import dataclass

from mixcli.engine.labels import Node
from mixcli.engine.prefix_cache import PrefixCache, common_prefix
from mixcli.engine.sequence import Sequence

MIN_SHARED = 32  # tokens of a common beginning that are worth waiting for
HEADROOM = 32  # cells to keep free for each running sequence when a new one is let in


@dataclass(frozen=True)
class Chunk:
    """Tokens of one sequence to compute: from position `start`, `n_tokens` with the drafts, logits wanted behind the last `n_logits`."""

    sequence: Sequence
    start: int
    n_tokens: int
    n_logits: int

    @property
    def tokens(self) -> list[int]:
        known = self.sequence.tokens[self.start : self.start + self.n_tokens]
        return known + self.sequence.drafts[: self.n_tokens - len(known)]


@dataclass(frozen=True)
class Scoring:
    """Branches of one sequence's labels to compute behind its prompt, in slots that are borrowed for this step, one a branch."""

    sequence: Sequence
    nodes: tuple[Node, ...]
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """What one decode computes."""

    chunks: tuple[Chunk, ...]
    scorings: tuple[Scoring, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.chunks or self.scorings)

    @property
    def sequences(self) -> list[Sequence]:
        return [part.sequence for part in self.chunks] + [part.sequence for part in self.scorings]


class Scheduler:
    """Holds the queue and the running sequences; a step has `n_batch` tokens at most, and `n_ubatch` while somebody writes."""

    def __init__(self, cache: PrefixCache, *, n_batch: int, n_ubatch: int, max_running: int) -> None:
        self._cache = cache
        self._n_batch, self._n_ubatch, self._max_running = n_batch, n_ubatch, min(max_running, n_batch)
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of arrival

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; its slot is the caller's to park or release."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> Step:
        """Choose the next step; empty when there is nothing to do."""
        while not (step := self._choose()) and len(self.running) > 1:
            self.preempt(self.running[-1])
        return step

    def _choose(self) -> Step:
        self._n_cells = 0  # that this step takes
        chunks = self._decode()
        n_used = sum(chunk.n_tokens for chunk in chunks)
        scorings = self._score(self._n_batch - n_used)
        budget = (min(self._n_ubatch, self._n_batch) if chunks else self._n_batch) - n_used
        budget -= sum(len(scoring.nodes) for scoring in scorings)
        for sequence in self.running:
            n = min(sequence.n_missing, budget)
            if sequence.n_missing > 1 and n > 0 and self._cache.make_room(self._n_cells + n):
                chunks.append(self._piece(sequence, n))
                self._n_cells += n
                budget -= n
        while budget > 0 and len(self.running) < self._max_running and self._admit():
            chunks.append(self._piece(self.running[-1], min(self.running[-1].n_missing, budget)))
            budget -= chunks[-1].n_tokens
        return Step(tuple(chunks), tuple(scorings))

    def preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to the head of the queue; it will be computed again from the longest prefix that is left."""
        assert sequence.slot is not None
        self._cache.release(sequence.slot)
        self.running.remove(sequence)
        sequence.wait()
        self.waiting.appendleft(sequence)

    def _decode(self) -> list[Chunk]:
        """Take the next token of everybody who writes, with as many drafts as the batch and the cache have room for."""
        chunks = []
        writing = [sequence for sequence in self.running if sequence.is_decoding]
        spare = self._n_batch - len(writing)
        for sequence in writing:
            del sequence.drafts[spare:]
            while sequence.drafts and not self._cache.make_room(self._n_cells + 1 + len(sequence.drafts)):
                sequence.drafts.pop()
            n = 1 + len(sequence.drafts)
            if self._secure(sequence, n):
                chunks.append(Chunk(sequence, sequence.n_computed, n, n))
                spare -= n - 1
        return chunks

    def _score(self, budget: int) -> list[Scoring]:
        """Take branches of labels, as far as the batch, slots and cells go."""
        scorings: list[Scoring] = []
        for sequence in self.running:
            if not sequence.scores_labels:
                continue
            assert sequence.scores is not None
            assert sequence.slot is not None
            first = sequence.n_branches_done
            slots = self._cache.borrow(sequence.slot, len(sequence.scores.branches) - first)
            nodes = sequence.scores.nodes(first, len(slots))
            while slots and (len(nodes) > budget or not self._cache.make_room(self._n_cells + len(nodes))):
                self._cache.give_back([slots.pop()])
                nodes = sequence.scores.nodes(first, len(slots))
            if not slots:
                break
            scorings.append(Scoring(sequence, tuple(nodes), tuple(slots)))
            budget -= len(nodes)
            self._n_cells += len(nodes)
        return scorings

    def _secure(self, sequence: Sequence, n_tokens: int) -> bool:
        """Make sure of the cells for a sequence that writes, sending the youngest back to the queue; False when that was the sequence itself."""
        if sequence not in self.running:
            return False
        while not self._cache.make_room(self._n_cells + n_tokens):
            youngest = self.running[-1]
            self.preempt(youngest)
            if youngest is sequence:
                return False
        self._n_cells += n_tokens
        return True

    @staticmethod
    def _piece(sequence: Sequence, n_tokens: int) -> Chunk:
        """Give the next tokens of a prompt; logits are wanted where they end it."""
        return Chunk(sequence, sequence.n_computed, n_tokens, int(n_tokens == sequence.n_missing))

    def _admit(self) -> bool:
        """Start the first request in the queue that nobody else works for; False when there is none or no room."""
        for sequence in self.waiting:
            if self._comes_soon(sequence):
                continue
            found = self._cache.admit(sequence.tokens)
            if found is None:
                return False
            slot, n_cached = found
            n_new = len(sequence.tokens) - n_cached
            promised = max(self._n_cells, sum(one.n_missing for one in self.running))
            if not self._cache.make_room(n_new + promised + HEADROOM * len(self.running)):
                self._cache.release(slot)
                return False
            self.waiting.remove(sequence)
            self.running.append(sequence)
            sequence.start(slot, n_cached)
            self._n_cells += n_new
            return True
        return False

    def _comes_soon(self, sequence: Sequence) -> bool:
        """Say whether a running sequence is about to compute more of this one's beginning than is there by now."""
        known = None
        for other in self.running:
            if other.n_missing <= 1:
                continue
            n_equal = common_prefix(other.tokens, sequence.tokens)
            if n_equal - other.n_computed < MIN_SHARED:
                continue
            if known is None:
                known = self._cache.match(sequence.tokens)
            if n_equal - known >= MIN_SHARED:
                return True
        return False
