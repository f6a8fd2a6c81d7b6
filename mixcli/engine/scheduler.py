"""Choose which tokens of which sequences go into the next batch; integers only, no tensors and no clock.

A sequence that writes adds one token (and its drafts) to every step; what is left of the batch is filled with pieces of prompts, the shortest
rest first. Prompts are packed together, because a mixture of experts reads nearly all its weights for thirty tokens as for four hundred. What others wait
for takes only as many tokens as a step may have in its time (pace.py), so that a long prompt of one does not stall the other. A request whose beginning
another request is about to compute waits for it. All that a decode is limited by is in one StepBudget; work that is larger than a step is split.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from mixcli.engine.labels import Branch, Node, fan
from mixcli.engine.pace import StepLimits, shares
from mixcli.engine.prefix_cache import PrefixCache
from mixcli.engine.sequence import Sequence
from mixcli.engine.step_budget import Cost, StepBudget
from mixcli.engine.token_tree import common_prefix

MIN_SHARED = 32  # tokens of a common beginning that are worth waiting for
MAX_LOGITS = 64  # tokens of a path of labels in one step: each takes a row as long as the vocabulary
ALONE = 128  # tokens of a deterministic prompt that are computed at a time, and shared with the next one
CROWD = 8  # requests beside which
SHORT = 256  # tokens are computed again sooner than that all others walk over them
HEADROOM = 32  # cells to keep free for each running sequence when a new one is let in


@dataclass(frozen=True)
class Chunk:
    """Tokens of one sequence to compute: from position `start`, `n_tokens` with the drafts, logits wanted after the last `n_logits`."""

    sequence: Sequence
    start: int
    n_tokens: int
    n_logits: int

    @property
    def tokens(self) -> list[int]:
        known = self.sequence.tokens[self.start : self.start + self.n_tokens]
        return known + self.sequence.drafts[: self.n_tokens - len(known)]

    @property
    def cost(self) -> Cost:
        """Return what it takes of a step; the row of its last token is not counted."""
        return Cost(self.n_tokens, rows=max(0, self.n_logits - 1))


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

    @property
    def n_tokens(self) -> int:
        return sum(chunk.n_tokens for chunk in self.chunks) + sum(len(one.nodes) for one in self.scorings)

    @property
    def n_writing(self) -> int:
        """Tokens of a step that computes nothing else than what requests write, drafts included; 0 for any other."""
        return 0 if self.n_prefill or self.scorings else self.n_tokens

    @property
    def n_prefill(self) -> int:
        """Tokens of prompts: all but those of sequences that write."""
        return sum(chunk.n_tokens for chunk in self.chunks if chunk.n_logits < chunk.n_tokens)


class Scheduler:
    """Holds the queue and the running sequences.

    A step has `n_batch` tokens at most, `n_ubatch` while a request decodes, `n_ids` ids of sequences on them, and logits
    after `n_rows` of them.
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
        self._reads = False  # whether the last step was for prompts alone
        self._kept: int | None = (
            None  # the slot of the last deterministic request, until another request computes
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self.waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out; its slot is the caller's to retain or release."""
        if sequence in self.running:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)

    @property
    def is_alone(self) -> bool:
        """Return whether the next step belongs to a deterministic request."""
        line = self.running or self.waiting
        return bool(line) and line[0].request.deterministic

    @property
    def is_closed(self) -> bool:
        """Return whether a deterministic request runs or waits, so that nothing may enter the cache from elsewhere."""
        return any(one.request.deterministic for one in (*self.running, *self.waiting))

    def disturb(self) -> None:
        """Note that something else entered the cache."""
        self._kept = None

    def keep(self, sequence: Sequence) -> None:
        """Retain what the next deterministic request can share: whole pieces of the prompt, as any request would compute them."""
        assert sequence.slot is not None
        self._cache.truncate(sequence.slot, sequence.n_prompt // self._alone * self._alone)
        self._cache.retain(sequence.slot)
        self._kept = sequence.slot if self._cache.is_retained(sequence.slot) else None

    def n_awaited(self, sequence: Sequence) -> int:
        """Return how many of a sequence's first tokens one of the next requests begins with, where these are worth keeping for it."""
        n = max(
            (common_prefix(one.tokens, sequence.tokens) for one in islice(self.waiting, self._max_running)),
            default=0,
        )
        return n if n >= MIN_SHARED else 0

    def is_in_the_way(self, slot: int, n_awaited: int = 0) -> bool:
        """Return whether what only this slot holds costs more while it stays than to compute it again: attention walks over all cells.

        It is not where a request that comes next begins with more than others hold, `n_awaited` tokens.
        """
        n_own = self._cache.n_own(slot)
        return len(self.running) > CROWD and n_own < SHORT and n_awaited <= self._cache.length(slot) - n_own

    def clear_way(self, slot: int, n_awaited: int) -> None:
        """Release a slot that is in the way, and with it what was retained of its beginning for requests that have come by now."""
        kept = [one for one in self._cache.beginnings(slot) if self._cache.length(one) > n_awaited]
        self._cache.release(slot)
        for one in kept:
            if self.is_in_the_way(one):
                self._cache.release(one)

    def schedule(self, limits: StepLimits | None = None) -> Step:
        """Choose the next step, as long as `limits` let it be, or a batch; empty when there is nothing to do."""
        if limits is None or self.is_alone:  # the pieces of a deterministic request are those of every time
            limits = StepLimits(self._n_ubatch, self._n_batch)
        self._reads = self._reads_next(limits)
        step = self._choose(limits, writes=False) if self._reads else Step(())
        while not (step or (step := self._choose(limits))) and len(self.running) > 1:
            self.preempt(self.running[-1])
        return step

    def _reads_next(self, limits: StepLimits) -> bool:
        """Return whether the next step is for prompts alone; never two in a row, since requests that write would wait for both."""
        n_missing = sum(one.n_missing for one in self.running if not one.is_decoding)
        n_writing = sum(one.is_decoding for one in self.running)
        return not self._reads and limits.apart(n_writing, n_missing)

    def _choose(self, limits: StepLimits, *, writes: bool = True) -> Step:
        """Choose what a step computes; unless it `writes`, only prompts."""
        budget = StepBudget(self._cache, tokens=self._n_batch, ids=self._n_ids, rows=self._n_rows)
        chunks = self._decode(budget) if writes else []
        scorings = self._score(budget) if writes else []
        n_taken = self._n_batch - budget.tokens
        if chunks:
            budget.limit(self._n_ubatch)
        while self._may_admit(budget) and self._admit(budget):
            pass
        writing = {chunk.sequence.id for chunk in chunks}
        reading = [
            one
            for one in self.running
            if one.id not in writing and one.n_missing > 0 and (writes or not one.is_decoding)
        ]
        given = shares(
            [one.n_missing for one in reading],
            limits.left(n_taken, budget.tokens),
            awaited=bool(chunks) or not writes,
        )
        for sequence, n_tokens in zip(reading, given, strict=True):
            chunk = self._piece(sequence, budget, n_tokens)
            if chunk is not None and budget.take(chunk.cost):
                chunks.append(chunk)
        return Step(tuple(chunks), tuple(scorings))

    def _may_admit(self, budget: StepBudget) -> bool:
        return bool(self.waiting) and len(self.running) < self._max_running and budget.has(Cost(1))

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
        for n_before, sequence in enumerate(writing):
            n_later = len(writing) - n_before - 1  # the next token of each comes before the drafts of any
            del sequence.drafts[max(0, min(budget.tokens - n_later - 1, budget.rows)) :]
            while sequence.drafts and not budget.has(Cost(1 + len(sequence.drafts))):
                sequence.drafts.pop()
            n = 1 + len(sequence.drafts)
            chunk = Chunk(sequence, sequence.n_computed, n, n)
            if self._secure(chunk, budget):
                chunks.append(chunk)
        return chunks

    def _score(self, budget: StepBudget) -> list[Scoring]:
        """Take the next branches of labels: a fan of as many as fit; where not even one does, the first as a path of its own."""
        scorings: list[Scoring] = []
        for sequence in self.running:
            if not sequence.scores_labels:
                continue
            assert sequence.scores is not None
            assert sequence.slot is not None
            self._truncate(sequence, sequence.n_base + sequence.scores.retreat())
            if not sequence.scores_labels or not budget.has(Cost(1)):
                continue
            branches: list[Branch] = []
            cost = Cost(0, ids=0)
            for branch in sequence.scores.open_branches():
                more = cost + Cost(branch.n_tokens, branch.n_slots, branch.n_ids, rows=branch.n_tokens)
                if not budget.has(more):
                    break
                branches.append(branch)
                cost = more
            if branches and budget.take(cost):
                forks = self._cache.fork(sequence.slot, cost.slots)
                scorings.append(Scoring(sequence, tuple(fan(branches)), tuple(forks)))
            else:
                sequence.tokens += sequence.scores.descend()
        return scorings

    def _truncate(self, sequence: Sequence, n_tokens: int) -> None:
        """Let a sequence forget all but its first tokens; where it could not continue after these, it begins again."""
        assert sequence.slot is not None
        del sequence.tokens[n_tokens:]
        sequence.n_computed = self._cache.truncate(sequence.slot, n_tokens)
        if not sequence.n_computed:
            sequence.leave_path()

    def _secure(self, chunk: Chunk, budget: StepBudget) -> bool:
        """Take the tokens of a sequence that decodes, preempting the youngest for room; False when that was the sequence itself."""
        if chunk.sequence not in self.running:
            return False
        while not budget.take(chunk.cost):
            youngest = self.running[-1]
            self.preempt(youngest)
            if youngest is chunk.sequence:
                return False
        return True

    def _piece(self, sequence: Sequence, budget: StepBudget, n_tokens: int) -> Chunk | None:
        """Return the next `n_tokens` of a prompt, or of a path to labels, as many as the budget may have; None for none."""
        start = sequence.n_computed
        n = min(sequence.n_missing, n_tokens, budget.tokens)
        if sequence.request.deterministic and start < sequence.n_prompt:
            n = min(n, self._alone - start % self._alone)
        if sequence.scores is not None:
            n = min(n, max(0, sequence.n_base - 1 - start) + 1 + budget.rows)
        if start >= sequence.n_base:
            n = min(n, MAX_LOGITS)
        return Chunk(sequence, start, n, sequence.n_logits(start, n)) if n > 0 else None

    def _admit(self, budget: StepBudget) -> bool:
        """Start the first queued request whose prefix no other sequence is computing; False if there is none or no room."""
        if self.running and self.running[0].request.deterministic:
            return False
        for sequence in self.waiting:
            if sequence.request.deterministic:
                return not self.running and self._admit_alone(sequence, budget)
            if _comes_soon(sequence, self.running, self._cache):
                continue
            self.disturb()
            found = self._cache.admit(sequence.tokens)
            if found is None:
                return False
            slot, n_cached = found
            n_path = sequence.scores.n_longest if sequence.scores is not None else 0
            if not budget.promise(
                len(sequence.tokens) - n_cached,
                needed=sum(one.n_needed for one in self.running),
                spare=n_path + HEADROOM * len(self.running),
            ):
                self._cache.release(slot)
                return False
            self._start(sequence, slot, n_cached)
            return True
        return False

    def _admit_alone(self, sequence: Sequence, budget: StepBudget) -> bool:
        """Start a deterministic request in a cache that holds nothing else but what the one before it computed in the same pieces."""
        slot, n_cached = self._cache.admit_alone(sequence.tokens, self._kept, self._alone)
        self._kept = None
        is_promised = budget.promise(len(sequence.tokens) - n_cached)
        assert is_promised, "an empty cache has room for the context"
        self._start(sequence, slot, n_cached)
        return True

    def _start(self, sequence: Sequence, slot: int, n_cached: int) -> None:
        self.waiting.remove(sequence)
        self.running.append(sequence)
        sequence.start(slot, n_cached)


def _comes_soon(sequence: Sequence, running: Iterable[Sequence], cache: PrefixCache) -> bool:
    """Return whether a running sequence is about to compute more of this one's beginning than is in the cache."""
    known = None
    for other in running:
        if other.n_missing <= 1:
            continue
        n_equal = common_prefix(other.tokens, sequence.tokens)
        if n_equal - other.n_computed < MIN_SHARED:
            continue
        if known is None:
            known = cache.match(sequence.tokens)
        if n_equal - known >= MIN_SHARED:
            return True
    return False
