"""The engine loop: add requests, abort them, and step, which computes one batch and returns its outputs.

A step is: the scheduler chooses tokens, llama.cpp decodes them, each sequence with logits chooses its next token. Many requests run
at once in one unified KV cache; a prefix that one has computed is reused by the others. Everything belongs to one thread, except
`interrupt`, `compile` and `on_disk`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter

from mixcli.engine.admission import Admission
from mixcli.engine.constraint import Constraint
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.draft_model import ALONE, Drafting
from mixcli.engine.faults import request_error, survived
from mixcli.engine.field_scores import FieldEnds
from mixcli.engine.generation import Generation
from mixcli.engine.kv_memory import KvMemory
from mixcli.engine.kv_store import KvStore
from mixcli.engine.pace import StepPace
from mixcli.engine.prefix_cache import PrefixCache
from mixcli.engine.scheduler import Scheduler, Step
from mixcli.engine.sequence import Output, Request, Sequence
from mixcli.engine.step_costs import StepCosts
from mixcli.engine.step_decoder import StepDecoder
from mixcli.engine.step_results import StepResults
from mixcli.engine.token_sampler import TokenSampler
from mixcli.errors import BadRequest, Busy, MixcliError
from mixcli.llama.context import ComputeError, Context, ContextLost
from mixcli.llama.model import Model
from profiles.placement import outputs

MAX_RUNNING = 32  # requests that are computed at the same time
MAX_WAITING = 1024  # requests in the queue; more are turned away

Choice = TokenSampler | None


class Engine:
    """Runs requests on one model and one context; `store` keeps texts on disk for the next process."""

    def __init__(
        self, model: Model, context: Context, store: KvStore | None = None, drafting: Drafting = ALONE
    ) -> None:
        self._context = context
        self._cache = PrefixCache(context.n_cells, context.n_sequences, self._can_continue)
        self._memory = KvMemory(context, self._cache, store)
        self._decoder = StepDecoder(context, self._memory)
        n_batch = context.n_batch if context.has_pipeline else context.n_ubatch
        self._pace = StepPace(context.n_ubatch, n_batch)
        self._scheduler = Scheduler(
            self._cache,
            n_batch=n_batch,
            n_ubatch=context.n_ubatch,
            max_running=min(MAX_RUNNING, max(1, context.n_sequences // 2)),
            n_ids=self._decoder.max_ids,
            n_rows=outputs(context.n_sequences, context.n_ubatch),
        )
        self._costs = StepCosts(drafting.step_costs)
        self._admission = Admission(model.vocab, context.n_ctx, self._costs, drafting.model)
        self._sequences: dict[str, Sequence] = {}
        self._generations: dict[str, Generation] = {}
        self._results = StepResults(self._decoder, self._cache, self._generations, FieldEnds(model.vocab))
        self._ready: list[Output] = []
        self.n_done = 0  # requests that finished, not aborted

    @property
    def has_work(self) -> bool:
        return bool(self._sequences or self._ready)

    @property
    def n_waiting(self) -> int:
        """Requests that have not started."""
        return len(self._scheduler.waiting)

    @property
    def n_running(self) -> int:
        """Requests that are being computed."""
        return len(self._scheduler.running)

    @property
    def n_prompt_tokens_done(self) -> int:
        """Prompt tokens that were computed, not found in the cache."""
        return self._results.n_prompt_tokens

    @property
    def kv_cells(self) -> tuple[int, int]:
        """Return the KV cache's cells that some text holds, and all of them; each is for one token."""
        return self._cache.n_used, self._cache.n_cells

    @property
    def is_deterministic(self) -> bool:
        """Return whether the next step computes a request whose bits must not depend on anything else, the number of threads included."""
        return self._scheduler.is_alone

    def ids(self) -> set[str]:
        """Return the ids of the requests that wait or run."""
        return set(self._sequences)

    def compile(self, spec: ConstraintSpec, *, at_start: bool) -> Constraint:
        """Make a constraint for `add`, in any thread; the first one takes half a second more. Raises BadRequest."""
        return self._admission.compile(spec, at_start=at_start)

    def has_compiled(self, spec: ConstraintSpec, *, at_start: bool) -> bool:
        """Return whether `compile` has nothing to do."""
        return self._admission.has_compiled(spec, at_start=at_start)

    def on_disk(self, prompt: tuple[int, ...]) -> Callable[[], object] | None:
        """Return what checks the text on disk that a prompt begins with, which may take seconds; None where there is nothing to check.

        May be used from any thread, as what it returns; a request that is added after it need not wait for the check.
        """
        return self._memory.unchecked(prompt)

    def interrupt(self, request_id: str | None = None) -> None:
        """Make a step that computes many tokens return early, from any thread: so an abort need not wait for a long prefill.

        With a request's id only where the step is nearly all that one's: what is computed for others is not thrown away.
        """
        self._decoder.interrupt(request_id)

    def add(self, request: Request, constraint: Constraint | None = None, sampler: Choice = None) -> None:
        """Queue a request, with its constraint and its sampler where these were made elsewhere.

        Raises ContextOverflow or BadRequest when it can never run, Busy when the queue is full; the engine is as before then.
        """
        if request.id in self._sequences:
            raise BadRequest(f"request id {request.id!r} is already in use", param="id")
        self._admission.check(request)
        if self.n_waiting >= MAX_WAITING:
            raise Busy(f"{self.n_waiting:,} requests are queued already; retry in a few seconds")
        sequence = self._admission.sequence(request)
        if sequence.scores is None:
            self._generations[request.id] = self._admission.generation(request, constraint, sampler)
        self._sequences[request.id] = sequence
        self._scheduler.add(sequence)
        if not self._scheduler.is_closed:
            with survived():
                self._restore(sequence)

    def abort(self, request_id: str) -> None:
        """End a request; its last output, "abort", comes with the next step. An unknown id is one that has just finished."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._try(sequence, partial(self._abort, sequence))

    def step(self) -> list[Output]:
        """Compute the next batch and return what can be shown; a request that fails ends with an `error`, and the others continue."""
        if not self._ready:  # what is ready must not wait for a batch
            self._draft()
            step = self._scheduler.schedule(self._pace.limits())
            if step:
                self._compute(step)
        outputs, self._ready = self._ready, []
        return outputs

    def check(self) -> None:
        """Raise AssertionError where the engine's state and llama.cpp's cells differ; for tests, between two steps."""
        self._memory.check()
        assert self.has_work or self._cache.has_room(self._context.n_cells), "cells are held for no request"

    def close(self) -> None:
        """Write to disk what must outlive the process."""
        self._memory.close()

    def _can_continue(self, slot: int, n_tokens: int) -> bool:
        return self._memory.can_continue(slot, n_tokens)

    def _abort(self, sequence: Sequence) -> None:
        generation = self._generations.get(sequence.id)
        text, segments = generation.rest() if generation and sequence.n_generated else ("", ())
        self._finish(sequence, Output(sequence.id, text, (), "abort", segments=segments))

    def _restore(self, sequence: Sequence) -> None:
        """Load from disk the longest prefix of this prompt, if it is much longer than the cached one."""
        entry = self._memory.find(sequence.tokens)
        if entry is not None:
            self._scheduler.disturb()
            self._memory.restore(entry)

    def _try(self, sequence: Sequence, work: Callable[[], None]) -> None:
        """Run a part of a step that concerns one sequence; an exception ends that request only."""
        try:
            work()
        except Exception as error:
            if sequence.id in self._sequences:
                self._fail(sequence, request_error(error))

    def _draft(self) -> None:
        """Draft tokens for the sequences that decode."""
        alone = len(self._sequences) == 1
        writing = [one for one in self._scheduler.running if one.is_decoding and one.scores is None]
        for one in writing:
            self._try(one, partial(self._generations[one.id].draft, one, len(writing) - 1, alone=alone))

    def _compute(self, step: Step) -> None:
        """Decode a step and advance every sequence of it."""
        began = perf_counter()
        try:
            done = self._decoder.decode(step)
        except ContextLost:
            raise
        except ComputeError as error:
            self._release_forks(step)
            self._compute_apart(step, error)
            return
        self._release_forks(step)
        seconds = perf_counter() - began
        self._pace.observe(step.n_tokens, step.n_prefill, seconds, done=done)
        if done:
            self._costs.observe(step.n_writing, seconds)
        row = 0
        for chunk in step.chunks:
            row += chunk.n_tokens
            read = partial(self._results.of_chunk, chunk, row - chunk.n_logits, done=done)
            self._try(chunk.sequence, partial(self._advance, chunk.sequence, read))
        for scoring in step.scorings:
            if done:
                read = partial(self._results.of_scoring, scoring, row)
                self._try(scoring.sequence, partial(self._advance, scoring.sequence, read))
            row += len(scoring.nodes)

    def _compute_apart(self, step: Step, error: ComputeError) -> None:
        """Compute the parts of a step that llama.cpp refused one by one: only a sequence whose own part is refused ends."""
        self._decoder.undo(step)
        if len(step.sequences) == 1:
            self._fail(step.sequences[0], error)
            return
        for chunk in step.chunks:
            self._compute(Step((chunk,)))
        for scoring in step.scorings:
            assert scoring.sequence.slot is not None
            slots = self._cache.fork(scoring.sequence.slot, len(scoring.slots))
            if len(slots) == len(scoring.slots):
                self._compute(Step((), (replace(scoring, slots=tuple(slots)),)))
            else:
                self._cache.release_forks(slots)
                self._fail(scoring.sequence, error)

    def _release_forks(self, step: Step) -> None:
        for scoring in step.scorings:
            self._cache.release_forks(scoring.slots)

    def _advance(self, sequence: Sequence, read: Callable[[], Output | None]) -> None:
        """Read what a step computed for a sequence, and end its request where that is the last output."""
        output = read()
        if output is None:
            return
        if output.finish_reason:
            self._finish(sequence, output)
        else:
            self._ready.append(output)

    # the end of a request

    def _finish(self, sequence: Sequence, output: Output) -> None:
        """End a request with its last output, and keep what it computed as the request wants it."""
        request = sequence.request
        if sequence.slot is not None:
            if sequence.scores is not None:  # a path to labels is not part of the answer
                self._results.truncate(sequence, min(sequence.n_computed, sequence.n_prompt))
            save = request.persist and self._memory.is_persistent
            n_awaited = self._scheduler.n_awaited(sequence)
            if request.deterministic:
                self._scheduler.keep(sequence)
            elif not save and self._scheduler.is_in_the_way(sequence.slot, n_awaited):
                self._scheduler.clear_way(sequence.slot, n_awaited)
            elif request.park:
                self._cache.retain(sequence.slot, save=save)
            else:
                self._cache.retain_prefix(sequence.slot, sequence.n_prompt, n_awaited=n_awaited, save=save)
        self.n_done += output.finish_reason != "abort"
        self._remove(sequence, output)

    def _fail(self, sequence: Sequence, error: MixcliError) -> None:
        """End a request with an error, and forget all that it computed."""
        if sequence.slot is not None:
            self._cache.release(sequence.slot)
        self._remove(sequence, Output(sequence.id, "", (), error=error))

    def _remove(self, sequence: Sequence, output: Output) -> None:
        usage = sequence.finish()
        self._scheduler.remove(sequence)
        del self._sequences[sequence.id]
        if (generation := self._generations.pop(sequence.id, None)) is not None:
            generation.close()
        self._ready.append(replace(output, usage=usage))


__all__ = ["Engine"]
