"""Carries out what the scheduler chooses, without a model: it only counts, and a text's next token is a function of its tokens."""

import random
from dataclasses import dataclass, field

import numpy as np

from mixcli.engine.labels import LabelScores
from mixcli.engine.pace import StepLimits
from mixcli.engine.prefix_cache import PrefixCache
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.scheduler import Chunk, Scheduler, Step
from mixcli.engine.sequence import Request, Sequence, SequenceStatus

N_CTX = 128
END = 0


@dataclass
class Machine:
    """Decodes steps: a text's next token is a function of its tokens, so that an answer can be told from a wrong one."""

    n_cells: int = N_CTX
    n_slots: int = 8
    n_batch: int = 32
    n_ubatch: int = 16
    max_running: int = 4
    n_ids: int = 100
    n_rows: int = 1000
    limits: StepLimits | None = None
    computed: list[int] = field(default_factory=list)  # tokens of each step

    def __post_init__(self) -> None:
        self.cache = PrefixCache(self.n_cells, self.n_slots)
        self.scheduler = Scheduler(
            self.cache,
            n_batch=self.n_batch,
            n_ubatch=self.n_ubatch,
            max_running=self.max_running,
            n_ids=self.n_ids,
            n_rows=max(self.n_rows, self.max_running),
        )
        self.finished: dict[str, list[int]] = {}
        self.scored: list[int] = []  # tokens of labels that were computed

    def ask(self, name: str, prompt: list[int], labels: tuple[tuple[int, ...], ...] = ()) -> Sequence:
        sequence = Sequence(Request(name, tuple(prompt), SamplingParams()))
        if labels:
            sequence.scores = LabelScores(labels, [END])
        self.scheduler.add(sequence)
        return sequence

    def step(self) -> Step:
        step = self.scheduler.schedule(self.limits)
        assert step or not (self.scheduler.running or self.scheduler.waiting), (
            "a step with work left is non-empty"
        )
        assert self.cache.n_used + self.n_new(step) <= self.n_cells
        assert self.n_new(step) <= self.n_batch
        n_ids = sum(len(node.slots) for scoring in step.scorings for node in scoring.nodes)
        assert len(step.chunks) + n_ids <= self.n_ids
        n_rows = sum(chunk.n_logits for chunk in step.chunks) + sum(len(s.nodes) for s in step.scorings)
        assert n_rows <= max(self.n_rows, self.max_running)
        self.computed.append(self.n_new(step))
        for chunk in step.chunks:
            self._carry_out(chunk)
        for scoring in step.scorings:
            scores = scoring.sequence.scores
            assert scores is not None
            assert {slot for node in scoring.nodes for slot in node.slots} == set(range(len(scoring.slots)))
            for node in scoring.nodes:
                self.scored.append(node.token)
                scores.see(node.branch, node.offset, LOGITS)
            self.cache.release_forks(scoring.slots)
            self._end_labels(scoring.sequence)
        self.cache.check()
        return step

    @staticmethod
    def n_new(step: Step) -> int:
        return sum(chunk.n_tokens for chunk in step.chunks) + sum(len(s.nodes) for s in step.scorings)

    def _carry_out(self, chunk: Chunk) -> None:
        sequence = chunk.sequence
        assert sequence.slot is not None
        assert self.cache.length(sequence.slot) == chunk.start == sequence.n_computed
        assert self.cache.tokens(sequence.slot) == sequence.tokens[: chunk.start]
        assert len(chunk.tokens) == chunk.n_tokens > 0
        self.cache.extend(sequence.slot, chunk.tokens)
        sequence.n_computed += chunk.n_tokens
        if not chunk.n_logits:
            return
        if sequence.scores is not None:
            for i in range(chunk.n_logits):
                depth = chunk.start + chunk.n_tokens - chunk.n_logits + 1 + i - sequence.n_prompt
                sequence.scores.see_path(depth, LOGITS)
                self.scored += [chunk.tokens[i - chunk.n_logits]] if depth else []
            self._end_labels(sequence)
            return
        drafts, sequence.drafts = sequence.drafts, []
        n_right = 0
        for i in range(chunk.n_logits):
            token = following(sequence.tokens)
            if token != END:
                sequence.append(token)
            if token == END or len(sequence.tokens) > N_CTX:  # the last token need not be computed
                self.finish(sequence)
                return
            if i == len(drafts) or drafts[i] != token:
                break
            n_right += 1
        self.cache.truncate(sequence.slot, chunk.start + chunk.n_tokens - len(drafts) + n_right)
        sequence.n_computed = len(sequence.tokens) - 1

    def _end_labels(self, sequence: Sequence) -> None:
        assert sequence.scores is not None
        if sequence.scores.is_complete:
            self.finish(sequence)

    def finish(self, sequence: Sequence) -> None:
        assert sequence.slot is not None
        if sequence.scores is not None:
            self.cache.truncate(sequence.slot, sequence.n_prompt)
        sequence.leave_path()
        self.finished[sequence.id] = sequence.tokens
        self.scheduler.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        self.cache.retain(sequence.slot)


LOGITS = np.linspace(0, 1, 64, dtype=np.float32)


def following(tokens: list[int]) -> int:
    """The next token of a text: ends after some tokens, and never depends on how the text was computed."""
    return random.Random(repr(tokens[-3:]) + str(len(tokens))).randrange(0, 24)


def answer(prompt: list[int]) -> list[int]:
    tokens = list(prompt)
    while (token := following(tokens)) != END and len(tokens) <= N_CTX:
        tokens.append(token)
    return tokens
