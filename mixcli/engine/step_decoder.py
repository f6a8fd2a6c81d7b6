"""Decode one step of the scheduler with llama.cpp."""

import math

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.faults import BadLogits
from mixcli.engine.kv_memory import KvMemory
from mixcli.engine.scheduler import Chunk, Step
from mixcli.llama.batch import Batch
from mixcli.llama.context import Context

LONG_STEP = 64  # tokens in a decode that is worth interrupting


class StepDecoder:
    """Owns the batch of one context; everything belongs to the engine's thread, except `interrupt`."""

    def __init__(self, context: Context, memory: KvMemory) -> None:
        self._context, self._memory = context, memory
        self._batch = Batch(context.n_batch)
        self._owner: str | None = (
            None  # the request that all but LONG_STEP tokens of the running step belong to
        )

    @property
    def max_ids(self) -> int:
        """Sequence ids that the tokens of one batch can have, in all."""
        return self._batch.max_ids

    def decode(self, step: Step) -> bool:
        """Compute a step's tokens; False when `interrupt` stopped it. Raises ComputeError or ContextLost."""
        self._memory.apply()
        self._batch.clear()
        for chunk in step.chunks:
            assert chunk.sequence.slot is not None
            self._batch.extend(chunk.tokens, chunk.start, chunk.sequence.slot, chunk.n_logits)
        for scoring in step.scorings:
            for node in scoring.nodes:
                slots = [scoring.slots[slot] for slot in node.slots]
                self._batch.add(node.token, scoring.sequence.n_base + node.depth, slots)
        longest = max(step.chunks, key=lambda chunk: chunk.n_tokens, default=None)
        if longest is not None and len(self._batch) - longest.n_tokens <= LONG_STEP:
            self._owner = longest.sequence.id
        try:
            return self._context.decode(self._batch)
        finally:
            self._owner = None
            self._batch.clear()

    def interrupt(self, request_id: str | None) -> None:
        """Make a step that computes many tokens return early; with an id only where the step is nearly all that request's."""
        if len(self._batch) > LONG_STEP and (request_id is None or request_id == self._owner):
            self._context.interrupt()

    def n_computed(self, chunk: Chunk, *, done: bool) -> int:
        """Return how many tokens of a chunk are in the cache: all, or after an interrupt the whole micro-batches."""
        assert chunk.sequence.slot is not None
        return chunk.n_tokens if done else self._context.n_cached(chunk.sequence.slot) - chunk.start

    def undo(self, step: Step) -> None:
        """Forget what was computed of a step that llama.cpp refused: the micro-batches before the refused one."""
        for chunk in step.chunks:
            assert chunk.sequence.slot is not None
            self._context.truncate(chunk.sequence.slot, chunk.start)

    def logits(self, row: int) -> NDArray[np.float32]:
        """View the logits after token `row` of the last step, shape (n_vocab,); valid until the next step."""
        return self._context.logits(row)

    def check_logits(self, row: int, *, is_first: bool) -> None:
        """Raise BadLogits for logits that no sound weights give: NaN, which behind K-quants shows as logits that are all equal.

        A prompt may have no token of the damaged weights, and the answer one: then all logits behind it are NaN, or equal, which three of them show.
        """
        logits = self.logits(row)
        a, b, c = logits[0], logits[len(logits) // 2], logits[-1]
        if not is_first and not math.isnan(a) and not a == b == c:
            return
        least, most = float(logits.min()), float(logits.max())
        if not (np.isfinite(least) and np.isfinite(most) and least < most):
            raise BadLogits(self._context.model)
