"""Choose which tokens of which sequences go into the next batch; integers only, no tensors and no clock.

A sequence that writes adds one token (and its drafts) to every step; what is left of the batch is filled with pieces of prompts, in order of
arrival. Prompts are packed together, because a mixture of experts reads nearly all its weights for thirty tokens as for four hundred. While a request decodes,
a step takes at most one micro-batch, so that a long prompt of one does not stall the other. A request whose beginning another request is
about to compute waits for it. All that a decode is limited by is in one StepBudget; work that is larger than a step is split.
"""

from collections import deque
from dataclasses import dataclass

from mixcli.engine.labels import Branch, Node, fan
from mixcli.engine.prefix_cache import PrefixCache, common_prefix
from mixcli.engine.sequence import Sequence

MIN_SHARED = 32  # tokens of a common beginning that are worth waiting for
MAX_LOGITS = 64  # tokens of a path of labels in one step: each takes a row as long as the vocabulary
ALONE = 128  # tokens of a deterministic prompt that are computed at a time, and shared with the next one
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
    """A fan of branches of one sequence's labels, in slots that are borrowed for this step, one a leaf."""

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


class StepBudget:
    """What one decode still has: `tokens` of the batch, `ids` of sequences on them, `rows` of logits, and cells and slots of the cache.

    A row for each running sequence is set apart: `rows` are those of drafts and labels beyond it. Every decision of a step draws from it, so none can overdraw what another has taken. `cells` are those that the step takes.
    """

    def __init__(self, cache: PrefixCache, *, tokens: int, ids: int, rows: int) -> None:
        self._cache = cache
        self.tokens, self.ids, self.rows, self.cells = tokens, ids, rows, 0

    def has(self, tokens: int, *, slots: int = 0, ids: int = 1, rows: int = 0) -> bool:
        """Whether so much is left."""
        return (
            tokens <= self.tokens
            and ids <= self.ids
            and rows <= self.rows
            and slots <= self._cache.n_slots_left
            and self._cache.has_room(self.cells + tokens)
        )

    def take(self, tokens: int, *, slots: int = 0, ids: int = 1, rows: int = 0) -> bool:
        """Draw so much, which may evict parked texts; False, and nothing is drawn, where it is not left."""
        if not (
            self.has(tokens, slots=slots, ids=ids, rows=rows) and self._cache.make_room(self.cells + tokens)
        ):
            return False
        self.tokens -= tokens
        self.ids -= ids
        self.rows -= rows
        self.cells += tokens
        return True


class Scheduler:
    """Holds the queue and the running sequences.

    A step has `n_batch` tokens at most, `n_ubatch` while a request decodes, `n_ids` ids of sequences on them, and logits
    behind `n_rows` of them.
    """

    def __init__(
        self, cache: PrefixCache, *, n_batch: int, n_ubatch: int, max_running: int, n_ids: int, n_rows: int
    ) -> None:
        self._cache = cache
        self._n_batch, self._n_ubatch, self._n_ids = n_batch, min(n_ubatch, n_batch), n_ids
        self._max_running = min(max_running, n_batch)
        self._n_rows = n_rows - self._max_running  # each running sequence has one of its own
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []  # in order of arrival
        self._alone = min(ALONE, self._n_ubatch)
        self._kept: int | None = (
            None  # the slot of the last deterministic request, until another request computes
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; its slot is the caller's to park or release."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    @property
    def is_alone(self) -> bool:
        """Whether the next step belongs to a deterministic request."""
        line = self.running or self.waiting
        return bool(line) and line[0].request.deterministic

    @property
    def is_closed(self) -> bool:
        """Whether a deterministic request runs or waits, so that nothing may enter the cache from elsewhere."""
        return any(one.request.deterministic for one in (*self.running, *self.waiting))

    def disturb(self) -> None:
        """Note that something else entered the cache."""
        self._kept = None

    def keep(self, sequence: Sequence) -> None:
        """Park what the next deterministic request can share: whole pieces of the prompt, as any request would compute them."""
        assert sequence.slot is not None
        self._cache.truncate(sequence.slot, sequence.n_prompt // self._alone * self._alone)
        self._cache.retain(sequence.slot)
        self._kept = sequence.slot if self._cache.is_parked(sequence.slot) else None

    def schedule(self) -> Step:
        """Choose the next step; empty when there is nothing to do."""
        while not (step := self._choose()) and len(self.running) > 1:
            self.preempt(self.running[-1])
        return step

    def _choose(self) -> Step:
        budget = StepBudget(self._cache, tokens=self._n_batch, ids=self._n_ids, rows=self._n_rows)
        chunks = self._decode(budget)
        scorings = self._score(budget)
        if chunks:
            budget.tokens -= self._n_batch - self._n_ubatch
        decoding = {chunk.sequence.id for chunk in chunks}
        for sequence in self.running:
            n = self._length(sequence, budget)
            if n > 0 and sequence.id not in decoding and budget.take(n):
                chunks.append(self._piece(sequence, n, budget))
        while (
            min(budget.tokens, budget.ids) > 0
            and len(self.running) < self._max_running
            and self._admit(budget)
        ):
            n = self._length(self.running[-1], budget)
            budget.tokens -= n
            budget.ids -= 1
            chunks.append(self._piece(self.running[-1], n, budget))
        return Step(tuple(chunks), tuple(scorings))

    def preempt(self, sequence: Sequence) -> None:
        """Send a running sequence back to the head of the queue; it will be computed again from the longest prefix that is left."""
        assert sequence.slot is not None
        self._cache.release(sequence.slot)
        self.running.remove(sequence)
        sequence.wait()
        self.waiting.appendleft(sequence)

    def _decode(self, budget: StepBudget) -> list[Chunk]:
        """Take the next token of every decoding sequence, with as many drafts as the batch and the cache have room for."""
        chunks = []
        writing = [sequence for sequence in self.running if sequence.is_decoding]
        budget.tokens -= len(writing)  # the next token of each comes before the drafts of any
        for sequence in writing:
            budget.tokens += 1
            del sequence.drafts[max(0, min(budget.tokens - 1, budget.rows)) :]
            while sequence.drafts and not budget.has(1 + len(sequence.drafts)):
                sequence.drafts.pop()
            n = 1 + len(sequence.drafts)
            if self._secure(sequence, n, budget):
                chunks.append(Chunk(sequence, sequence.n_computed, n, n))
        return chunks

    def _score(self, budget: StepBudget) -> list[Scoring]:
        """Take the next branches of labels: a fan of as many as fit; where not even one does, the first as a path of its own."""
        scorings: list[Scoring] = []
        for sequence in self.running:
            if not sequence.scores_labels:
                continue
            assert sequence.scores is not None
            assert sequence.slot is not None
            self._cut(sequence, sequence.n_prompt + sequence.scores.retreat())
            if not budget.has(1):
                continue
            branches: list[Branch] = []
            tokens = slots = ids = 0
            for branch in sequence.scores.open_branches():
                more = tokens + branch.n_tokens, slots + branch.n_slots, ids + branch.n_ids
                if not budget.has(more[0], slots=more[1], ids=more[2], rows=more[0]):
                    break
                branches.append(branch)
                tokens, slots, ids = more
            if branches and budget.take(tokens, slots=slots, ids=ids, rows=tokens):
                borrowed = self._cache.fork(sequence.slot, slots)
                scorings.append(Scoring(sequence, tuple(fan(branches)), tuple(borrowed)))
            else:
                sequence.tokens += sequence.scores.descend()
        return scorings

    def _cut(self, sequence: Sequence, n_tokens: int) -> None:
        """Let a sequence forget all but its first tokens."""
        assert sequence.slot is not None
        del sequence.tokens[n_tokens:]
        self._cache.truncate(sequence.slot, n_tokens)
        sequence.n_computed = min(sequence.n_computed, n_tokens)

    def _secure(self, sequence: Sequence, n_tokens: int, budget: StepBudget) -> bool:
        """Take the tokens of a sequence that writes, sending the youngest back to the queue for room; False when that was the sequence itself."""
        if sequence not in self.running:
            return False
        while not budget.take(n_tokens, rows=n_tokens - 1):
            youngest = self.running[-1]
            self.preempt(youngest)
            if youngest is sequence:
                return False
        return True

    def _length(self, sequence: Sequence, budget: StepBudget) -> int:
        """Return how much of what a sequence misses goes into a step."""
        n = min(sequence.n_missing, budget.tokens)
        if sequence.request.deterministic and sequence.n_computed < sequence.n_prompt:
            n = min(n, self._alone - sequence.n_computed % self._alone)
        if sequence.scores is not None:
            n = min(n, max(0, sequence.n_prompt - sequence.n_computed) + 1 + budget.rows)
        return min(n, MAX_LOGITS) if sequence.n_computed >= sequence.n_prompt else n

    @staticmethod
    def _piece(sequence: Sequence, n_tokens: int, budget: StepBudget) -> Chunk:
        """Return the next tokens of a prompt, or of a path to labels."""
        start = sequence.n_computed
        n_logits = sequence.n_logits(start, n_tokens)
        budget.rows -= max(0, n_logits - 1)
        return Chunk(sequence, start, n_tokens, n_logits)

    def _admit(self, budget: StepBudget) -> bool:
        """Start the first queued request whose prefix no other sequence is computing; False if there is none or no room."""
        if self.running and self.running[0].request.deterministic:
            return False
        for sequence in self.waiting:
            if sequence.request.deterministic:
                return not self.running and self._admit_alone(sequence, budget)
            if self._comes_soon(sequence):
                continue
            self.disturb()
            found = self._cache.admit(sequence.tokens)
            if found is None:
                return False
            slot, n_cached = found
            n_new = len(sequence.tokens) - n_cached
            n_path = sequence.scores.n_longest if sequence.scores is not None else 0
            promised = max(budget.cells, sum(one.n_needed for one in self.running))
            if not self._cache.make_room(n_new + n_path + promised + HEADROOM * len(self.running)):
                self._cache.release(slot)
                return False
            self.waiting.remove(sequence)
            self.running.append(sequence)
            sequence.start(slot, n_cached)
            budget.cells += n_new
            return True
        return False

    def _admit_alone(self, sequence: Sequence, budget: StepBudget) -> bool:
        """Start a deterministic request in a cache that holds nothing else but what the one before it computed in the same pieces."""
        slot, n_cached = self._cache.admit_alone(sequence.tokens, self._kept, self._alone)
        self._kept = None
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.start(slot, n_cached)
        budget.cells += len(sequence.tokens) - n_cached
        return True

    def _comes_soon(self, sequence: Sequence) -> bool:
        """Return whether a running sequence is about to compute more of this one's beginning than is there by now."""
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
