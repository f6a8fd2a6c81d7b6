"""The loop that turns requests into text: add, abort, and step, which computes one batch and gives what came out.

One request runs at a time, first come first served; the KV cache keeps the last conversation, so that a prompt that begins with
the same tokens starts where they end. Everything belongs to one thread, except `interrupt`.
"""

from collections import deque
from collections.abc import Sequence as Tokens

import numpy as np

from mixcli.engine.llama import Batch, Context, Model
from mixcli.engine.sequence import FinishReason, Output, Request, Sequence
from mixcli.errors import BadRequest, ContextOverflow, MixcliError

_CACHE = 0  # the one sequence id in the KV cache


class BadLogits(MixcliError):
    """The model computes NaN: its weights are broken."""


class Engine:
    """Runs requests on one model and one context."""

    def __init__(self, model: Model, context: Context) -> None:
        self._model, self._context = model, context
        self._batch = Batch(context.n_batch)
        self._waiting: deque[Sequence] = deque()
        self._running: Sequence | None = None
        self._ready: list[Output] = []
        self._cached: list[int] = []  # the tokens in the KV cache, in order

    @property
    def has_work(self) -> bool:
        return bool(self._running or self._waiting or self._ready)

    @property
    def n_waiting(self) -> int:
        """Requests that have not started."""
        return len(self._waiting)

    def ids(self) -> set[str]:
        """Give the ids of the requests that wait or run."""
        return {s.id for s in (*self._waiting, self._running) if s is not None}

    def add(self, request: Request) -> None:
        """Queue a request. Raises ContextOverflow or BadRequest when it can never run; the engine is as before then."""
        if request.id in self.ids():
            raise BadRequest(f"a request {request.id!r} is already running", param="id")
        n_vocab = self._model.vocab.n_tokens
        if not request.prompt:
            raise BadRequest("the prompt is empty", param="prompt")
        if not all(0 <= token < n_vocab for token in request.prompt):
            raise BadRequest(f"the prompt has token ids outside 0 .. {n_vocab - 1}", param="prompt")
        if len(request.prompt) > self._context.n_ctx:
            raise ContextOverflow(len(request.prompt), self._context.n_ctx)
        request.sampling.check_vocabulary(n_vocab)
        self._waiting.append(Sequence(request))

    def abort(self, request_id: str) -> None:
        """End a request; its last output, "abort", comes with the next step. An unknown id is one that has just finished."""
        if self._running and self._running.id == request_id:
            self._finish(self._running, self._running.rest(), (), "abort")
            self._running = None
        for sequence in [s for s in self._waiting if s.id == request_id]:
            self._waiting.remove(sequence)
            self._finish(sequence, "", (), "abort")

    def interrupt(self) -> None:
        """Make a step that is computing return early, from any thread: so an abort need not wait for a long prefill."""
        self._context.interrupt()

    def step(self) -> list[Output]:
        """Compute the next batch of the running request and give what can be shown; [] while a prompt is being read.

        Raises ComputeError or BadLogits when the model fails; the request is gone then, and the engine can go on with others.
        """
        if self._running is None and self._waiting:
            self._start(self._waiting.popleft())
        if self._running is not None:
            sequence = self._running
            try:
                if self._compute(sequence):
                    self._choose(sequence)
            except MixcliError:
                self._running = None
                sequence.finish()
                raise
        outputs, self._ready = self._ready, []
        return outputs

    def _start(self, sequence: Sequence) -> None:
        """Begin with the longest prefix that the cache has; the last prompt token is always computed, for its logits."""
        n_cached = min(_common_prefix(self._cached, sequence.tokens), len(sequence.tokens) - 1)
        self._cached = self._cached[: self._context.keep(_CACHE, n_cached)]
        sequence.start(self._model.vocab, self._context.n_ctx, len(self._cached))
        self._running = sequence

    def _compute(self, sequence: Sequence) -> bool:
        """Decode the next chunk; True when the logits for the next token are there."""
        chunk = sequence.tokens[sequence.n_computed :][: self._batch.capacity]
        is_last = len(chunk) == sequence.n_missing
        self._batch.clear()
        self._batch.extend(chunk, sequence.n_computed, _CACHE, last_logits=is_last)
        try:
            done = self._context.decode(self._batch)
        finally:
            n_computed = self._context.n_cached(_CACHE)
            self._cached += chunk[: max(n_computed - sequence.n_computed, 0)]
            del self._cached[n_computed:]
            sequence.n_computed = n_computed
        return done and is_last

    def _choose(self, sequence: Sequence) -> None:
        if sequence.n_generated == 0:
            self._check_logits()
        token = sequence.chooser.choose(self._context.logits())
        if self._model.vocab.is_end(token):
            self._finish(sequence, sequence.rest(), (), "stop")
            self._running = None
            return
        text, stopped = sequence.append(token)
        full = len(sequence.tokens) > self._context.n_ctx
        if stopped:
            self._finish(sequence, text, (token,), "stop")
        elif full or sequence.n_generated == sequence.request.sampling.max_tokens:
            self._finish(sequence, text + sequence.rest(), (token,), "length")
        else:
            self._ready.append(Output(sequence.id, text, (token,)))
            return
        self._running = None

    def _check_logits(self) -> None:
        """Raise BadLogits for logits that no sound weights give; a NaN behind K-quants shows as logits that are all equal."""
        logits = self._context.logits()
        if np.isfinite(logits).all() and logits.min() < logits.max():
            return
        self._cached = self._cached[: self._context.keep(_CACHE, 0)]
        raise BadLogits(
            f"{self._model.path.name} computes NaN instead of an answer: its weights are broken; "
            "check the file with `mixcli verify` or pull it again"
        )

    def _finish(
        self, sequence: Sequence, text: str, token_ids: tuple[int, ...], reason: FinishReason
    ) -> None:
        self._ready.append(Output(sequence.id, text, token_ids, reason, sequence.finish()))


def _common_prefix(first: Tokens[int], second: Tokens[int]) -> int:
    for n, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return n
    return min(len(first), len(second))
