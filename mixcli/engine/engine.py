"""The engine loop: add requests, abort them, and step, which computes one batch and returns its outputs.

A step is: the scheduler chooses tokens, llama.cpp decodes them, each sequence with logits chooses its next token. Many requests run
at once in one unified KV cache; what one has computed, others that begin alike start from. Everything belongs to one thread, except
`interrupt`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from mixcli.engine.constraint import Constraint, Grammars
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.faults import request_error, survived
from mixcli.engine.generation import Generation
from mixcli.engine.kv_store import KvStore
from mixcli.engine.labels import LabelScores
from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.prefix_cache import Clear, Copy, Cut, PrefixCache, Save
from mixcli.engine.prompt_lookup import PromptLookup
from mixcli.engine.scheduler import Chunk, Scheduler, Scoring, Step
from mixcli.engine.sequence import FinishReason, Output, Request, Sequence
from mixcli.errors import BadRequest, Busy, ContextOverflow, MixcliError
from mixcli.llama.batch import Batch
from mixcli.llama.context import ComputeError, Context, ContextLost
from mixcli.llama.model import Model
from profiles.placement import outputs

MAX_RUNNING = 32  # requests that are computed at the same time
MAX_WAITING = 1024  # requests in the queue; more are turned away
LONG_STEP = 64  # tokens in a decode that is worth interrupting
MIN_RESTORE = 64  # tokens that disk must have beyond the cache to be worth a read


class BadLogits(MixcliError):
    """The model computes NaN: its weights are broken."""


class Engine:
    """Runs requests on one model and one context; `store` keeps texts on disk for the next process, None keeps none."""

    def __init__(self, model: Model, context: Context, store: KvStore | None = None) -> None:
        self._model, self._context, self._store = model, context, store
        self._batch = Batch(context.n_batch)
        self._cache = PrefixCache(context.n_cells, context.n_sequences)
        self._scheduler = Scheduler(
            self._cache,
            n_batch=context.n_batch if context.has_pipeline else context.n_ubatch,
            n_ubatch=context.n_ubatch,
            max_running=min(MAX_RUNNING, max(1, context.n_sequences // 2)),
            n_ids=self._batch.max_ids,
            n_rows=outputs(context.n_sequences, context.n_ubatch),
        )
        self._sequences: dict[str, Sequence] = {}
        self._generations: dict[str, Generation] = {}
        self._lookups: dict[str, PromptLookup] = {}
        self._ready: list[Output] = []
        self._owner: str | None = (
            None  # the request that all but LONG_STEP tokens of the running step belong to
        )
        self._ends = [token for token in range(model.vocab.n_tokens) if model.vocab.is_end(token)]
        self.n_done = 0  # requests that finished, not aborted
        self.n_prompt_tokens_done = 0  # prompt tokens that were computed, not found in the cache

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
    def is_deterministic(self) -> bool:
        """Whether the next step computes a request whose bits must not depend on anything else, the number of threads included."""
        return self._scheduler.is_alone

    def ids(self) -> set[str]:
        """Return the ids of the requests that wait or run."""
        return set(self._sequences)

    def compile(self, spec: ConstraintSpec, *, at_start: bool) -> Constraint:
        """Make a constraint for `add`, in any thread; the first one takes half a second more. Raises BadRequest."""
        return self._grammars.compile(spec, at_start=at_start)

    def has_compiled(self, spec: ConstraintSpec, *, at_start: bool) -> bool:
        """Whether `compile` has nothing to do."""
        return "_grammars" in self.__dict__ and self._grammars.has(spec, at_start=at_start)

    def add(self, request: Request, constraint: Constraint | None = None) -> None:
        """Queue a request, with its constraint where that was compiled elsewhere.

        Raises ContextOverflow or BadRequest when it can never run, Busy when the queue is full; the engine is as before then.
        """
        self._check(request)
        generation = None
        if not request.labels:
            if constraint is None and request.constraint is not None:
                constraint = self.compile(request.constraint, at_start=not request.continues_text)
            generation = Generation(request, self._model.vocab, self._context.n_ctx, constraint)
        sequence = Sequence(request)
        if generation is None:
            sequence.scores = LabelScores([label.tokens for label in request.labels], self._ends)
            n_needed = sequence.n_prompt + sequence.scores.n_longest
            if n_needed > self._context.n_ctx:
                raise ContextOverflow(n_needed, self._context.n_ctx, what="the prompt with its longest label")
        else:
            self._generations[request.id] = generation
            if request.speculate:
                self._lookups[request.id] = PromptLookup()
        self._sequences[request.id] = sequence
        self._scheduler.add(sequence)
        if not self._scheduler.is_closed:
            with survived():
                self._restore(sequence)

    def on_disk(self, prompt: tuple[int, ...]) -> Callable[[], object] | None:
        """Return what checks the text on disk that a prompt begins with, which may take seconds; None where there is nothing to check.

        May be used from any thread, as what it returns; a request that is added after it need not wait for the check.
        """
        store = self._store
        entry = store.find(prompt) if store is not None else None
        if store is None or entry is None or entry.n_shared < MIN_RESTORE or store.is_checked(entry):
            return None
        return partial(store.check, entry)

    def abort(self, request_id: str) -> None:
        """End a request; its last output, "abort", comes with the next step. An unknown id is one that has just finished."""
        sequence = self._sequences.get(request_id)
        if sequence is not None:
            self._try(sequence, partial(self._abort, sequence))

    def _abort(self, sequence: Sequence) -> None:
        generation = self._generations.get(sequence.id)
        self._finish(sequence, generation.rest() if generation and sequence.n_generated else "", (), "abort")

    def interrupt(self, request_id: str | None = None) -> None:
        """Make a step that computes many tokens return early, from any thread: so an abort need not wait for a long prefill.

        With a request's id only where the step is nearly all that one's: what is computed for others is not thrown away.
        """
        if len(self._batch) > LONG_STEP and (request_id is None or request_id == self._owner):
            self._context.interrupt()

    def check(self) -> None:
        """Raise AssertionError where the books and llama.cpp's cells differ; for tests, between two steps."""
        self._apply()
        self._cache.check()
        for slot in range(self._context.n_sequences):
            assert self._context.n_cached(slot) == self._cache.length(slot), f"slot {slot}"
        assert self.has_work or self._cache.has_room(self._context.n_cells), "nobody holds anything any more"

    def close(self) -> None:
        """Write to disk what must outlive the process."""
        self._apply()
        for save in self._cache.to_save():
            self._save(save)
            if self._store is not None:
                self._store.flush()

    def step(self) -> list[Output]:
        """Compute the next batch and give what can be shown; a request that failed ends with an `error`, and the others go on."""
        if not self._ready:  # what is ready must not wait for a batch
            self._propose()
            step = self._scheduler.schedule()
            if step:
                self._compute(step)
        outputs, self._ready = self._ready, []
        return outputs

    # asking

    def _check(self, request: Request) -> None:
        n_vocab, n_ctx = self._model.vocab.n_tokens, self._context.n_ctx
        if request.id in self._sequences:
            raise BadRequest(f"request id {request.id!r} is already in use", param="id")
        if not request.prompt:
            raise BadRequest("the prompt is empty", param="prompt")
        if not all(0 <= token < n_vocab for token in request.prompt):
            raise BadRequest(f"the prompt has token ids outside 0 .. {n_vocab - 1}", param="prompt")
        if len(request.prompt) > n_ctx:
            raise ContextOverflow(len(request.prompt), n_ctx)
        request.sampling.check_vocabulary(n_vocab)
        if self.n_waiting >= MAX_WAITING:
            raise Busy(f"{self.n_waiting:,} requests are queued already; retry in a few seconds")

    @cached_property
    def _grammars(self) -> Grammars:
        return Grammars(self._model.vocab)

    def _propose(self) -> None:
        """Draft tokens for the sequences that write: what a constraint forces, or what the text so far suggests."""
        for sequence in list(self._scheduler.running):
            if sequence.is_decoding and sequence.scores is None:
                self._try(sequence, partial(self._draft, sequence))

    def _draft(self, sequence: Sequence) -> None:
        most = self._context.n_ctx - len(sequence.tokens)
        if (limit := sequence.request.sampling.max_tokens) is not None:
            most = min(most, limit - sequence.n_generated - 1)
        drafts = self._generations[sequence.id].forced() if most > 0 else []
        lookup = self._lookups.get(sequence.id)
        sequence.guessed = not drafts and lookup is not None
        if not drafts and lookup is not None:
            drafts = lookup.propose(sequence.tokens)
        sequence.drafts = drafts[: max(0, most)]

    # computing

    def _compute(self, step: Step) -> None:
        """Decode a step and let every sequence that has logits go on."""
        began = perf_counter()
        try:
            done = self._decode(step)
        except ContextLost:
            raise
        except ComputeError as error:
            self._give_back(step)
            self._compute_apart(step, error)
            return
        self._give_back(step)
        seconds = perf_counter() - began
        row = 0
        for chunk in step.chunks:
            row += chunk.n_tokens
            self._record(chunk, done)
            if done and chunk.n_logits:
                self._try(chunk.sequence, partial(self._advance, chunk, row - chunk.n_logits, seconds))
            elif chunk.sequence.n_generated == 0:
                self._ready.append(Output(chunk.sequence.id, "", (), progress=chunk.sequence.progress()))
        for scoring in step.scorings:
            if done:
                self._try(scoring.sequence, partial(self._score, scoring, row))
            row += len(scoring.nodes)

    def _compute_apart(self, step: Step, error: ComputeError) -> None:
        """Compute the parts of a step that llama.cpp refused one by one: only a sequence whose own part is refused ends."""
        for chunk in step.chunks:  # micro-batches before the one that was refused may have been computed
            assert chunk.sequence.slot is not None
            self._context.truncate(chunk.sequence.slot, chunk.start)
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

    def _give_back(self, step: Step) -> None:
        for scoring in step.scorings:
            self._cache.release_forks(scoring.slots)

    def _try(self, sequence: Sequence, work: Callable[[], None]) -> None:
        """Run a step of one sequence; an exception ends that request only."""
        try:
            work()
        except Exception as error:
            if sequence.id in self._sequences:
                self._fail(sequence, request_error(error))

    def _decode(self, step: Step) -> bool:
        """Compute a step's tokens; False when `interrupt` stopped it."""
        self._apply()
        self._batch.clear()
        for chunk in step.chunks:
            assert chunk.sequence.slot is not None
            self._batch.extend(chunk.tokens, chunk.start, chunk.sequence.slot, chunk.n_logits)
        for scoring in step.scorings:
            for node in scoring.nodes:
                slots = [scoring.slots[slot] for slot in node.slots]
                self._batch.add(node.token, scoring.sequence.n_prompt + node.depth, slots)
        longest = max(step.chunks, key=lambda chunk: chunk.n_tokens, default=None)
        if longest is not None and len(self._batch) - longest.n_tokens <= LONG_STEP:
            self._owner = longest.sequence.id
        try:
            return self._context.decode(self._batch)
        finally:
            self._owner = None
            self._batch.clear()

    def _apply(self) -> None:
        """Apply what the cache has decided to llama.cpp."""
        for operation in self._cache.take_operations():
            match operation:
                case Copy(source, target, n_tokens):
                    self._context.copy(source, target, n_tokens)
                case Cut(slot, n_tokens):
                    self._context.truncate(slot, n_tokens)
                case Save():
                    self._save(operation)
                case Clear():
                    self._context.clear()

    def _record(self, chunk: Chunk, done: bool) -> None:
        """Note what of a chunk is in the cache: all of it, or after an interrupt the whole micro-batches."""
        sequence = chunk.sequence
        assert sequence.slot is not None
        n = chunk.n_tokens if done else self._context.n_cached(sequence.slot) - chunk.start
        self._cache.extend(sequence.slot, chunk.tokens[:n])
        sequence.n_computed = chunk.start + n
        self.n_prompt_tokens_done += max(0, min(sequence.n_computed, sequence.n_prompt) - chunk.start)
        if not done:  # its logits are lost, so the tokens that have some are computed again
            self._keep(sequence, min(sequence.n_computed, chunk.start + chunk.n_tokens - chunk.n_logits))
            sequence.drafts = []

    def _keep(self, sequence: Sequence, n_tokens: int) -> None:
        assert sequence.slot is not None
        self._cache.truncate(sequence.slot, n_tokens)
        sequence.n_computed = n_tokens

    def _advance(self, chunk: Chunk, row: int, seconds: float) -> None:
        """Choose the tokens that a chunk has logits for: the next one, and one more for each draft that proves right."""
        sequence = chunk.sequence
        if sequence.n_generated == 0:
            self._check_logits(self._context.logits(row))
        if sequence.scores is not None:
            first = (
                chunk.start + chunk.n_tokens - chunk.n_logits + 1 - sequence.n_prompt
            )  # tokens of the path
            for i in range(chunk.n_logits):
                sequence.scores.see_path(first + i, self._context.logits(row + i))
            self._answer_labels(sequence)
            return
        drafts, sequence.drafts = sequence.drafts, []
        n_accepted = 0
        texts: list[str] = []
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        finished: FinishReason | None = None
        for i in range(chunk.n_logits):
            finished = self._choose(sequence, row + i, texts, tokens, logprobs)
            if finished or i == len(drafts) or tokens[-1] != drafts[i]:
                break
            n_accepted += 1
        if drafts:
            sequence.n_drafted += len(drafts)
            sequence.n_accepted += n_accepted
            self._keep(sequence, chunk.start + 1 + n_accepted)
        lookup = self._lookups.get(sequence.id)
        is_decode = chunk.n_tokens == 1 + len(drafts)
        if (
            lookup is not None and is_decode and (sequence.guessed or not drafts)
        ):  # what is forced tells nothing
            lookup.observe(len(drafts), n_accepted, seconds)
        if finished:
            self._finish(sequence, "".join(texts), tuple(tokens), finished, tuple(logprobs))
        else:
            self._ready.append(Output(sequence.id, "".join(texts), tuple(tokens), logprobs=tuple(logprobs)))

    def _choose(
        self,
        sequence: Sequence,
        row: int,
        texts: list[str],
        tokens: list[int],
        logprobs: list[TokenLogprobs],
    ) -> FinishReason | None:
        """Choose one token and append its text; return the finish reason if the answer ends with it."""
        generation = self._generations[sequence.id]
        token, logprob = generation.choose(self._context.logits(row))
        if self._model.vocab.is_end(token):
            texts.append(generation.rest())
            return "stop"
        sequence.append(token)
        text, stopped = generation.append(token)
        texts.append(text)
        tokens.append(token)
        if logprob is not None:
            logprobs.append(logprob)
        if stopped:
            return "stop"
        full = len(sequence.tokens) > self._context.n_ctx
        if generation.is_complete:
            finished: FinishReason = "stop"
        elif full or sequence.n_generated == sequence.request.sampling.max_tokens:
            finished = "length"
        else:
            return None
        texts.append(generation.rest())
        return finished

    def _check_logits(self, logits: NDArray[np.float32]) -> None:
        """Raise BadLogits for logits that no sound weights give; a NaN behind K-quants shows as logits that are all equal."""
        least, most = float(logits.min()), float(logits.max())
        if np.isfinite(least) and np.isfinite(most) and least < most:
            return
        raise BadLogits(
            f"{self._model.path.name} computes NaN: its weights are damaged; "
            "check the file with `mixcli verify` or pull it again"
        )

    # labels

    def _score(self, scoring: Scoring, row: int) -> None:
        sequence = scoring.sequence
        assert sequence.scores is not None
        for i, node in enumerate(scoring.nodes):
            sequence.scores.see(node.branch, node.offset, self._context.logits(row + i))
        self._answer_labels(sequence)

    def _answer_labels(self, sequence: Sequence) -> None:
        """End a request whose labels are all scored: the most likely is its answer."""
        assert sequence.scores is not None
        if not sequence.scores.is_complete:
            return
        probabilities = sequence.scores.probabilities()
        best = sequence.request.labels[int(np.argmax(probabilities))]
        self._finish(sequence, best.text, best.tokens, "stop", label_probs=probabilities)

    # ending

    def _finish(
        self,
        sequence: Sequence,
        text: str,
        token_ids: tuple[int, ...],
        reason: FinishReason,
        logprobs: tuple[TokenLogprobs, ...] = (),
        label_probs: tuple[float, ...] = (),
    ) -> None:
        if sequence.slot is not None:
            if sequence.scores is not None:  # a path to labels is nothing that was said
                self._keep(sequence, min(sequence.n_computed, sequence.n_prompt))
            save = sequence.request.persist and self._store is not None
            if sequence.request.deterministic:
                self._scheduler.keep(sequence)
            elif sequence.request.park:
                self._cache.retain(sequence.slot, save=save)
            else:
                self._cache.park_prefix(sequence.slot, sequence.n_prompt, save=save)
        self.n_done += reason != "abort"
        usage = sequence.finish()
        self._forget(sequence)
        self._ready.append(Output(sequence.id, text, token_ids, reason, usage, logprobs, label_probs))

    def _fail(self, sequence: Sequence, error: MixcliError) -> None:
        """End a request with an error, and forget all that it computed."""
        if sequence.slot is not None:
            self._cache.release(sequence.slot)
        usage = sequence.finish()
        self._forget(sequence)
        self._ready.append(Output(sequence.id, "", (), usage=usage, error=error))

    def _forget(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        del self._sequences[sequence.id]
        self._lookups.pop(sequence.id, None)
        if (generation := self._generations.pop(sequence.id, None)) is not None:
            generation.close()

    # disk

    def _restore(self, sequence: Sequence) -> None:
        """Load from disk the longest prefix of this prompt as a parked text, if it is much longer than the cached one."""
        if self._store is None:
            return
        known = self._cache.match(sequence.tokens)
        entry = self._store.find(sequence.tokens)
        if entry is None or entry.n_shared - known < MIN_RESTORE:
            return
        if not self._cache.make_room(entry.n_tokens):
            return
        self._scheduler.disturb()
        slot = self._cache.open()
        if slot is None:
            return
        restored = False
        try:
            self._apply()
            restored = self._store.check(entry) and self._context.restore(slot, entry.n_tokens, entry.path)
            if not restored:
                self._store.forget(entry)
        finally:
            if restored:
                self._cache.extend(slot, entry.tokens)
                self._cache.retain(slot, save=True)
            else:
                self._cache.release(slot)

    def _save(self, save: Save) -> None:
        if self._store is not None:
            with survived():
                context, slot, tokens = self._context, save.slot, save.tokens
                self._store.save(
                    tokens, partial(context.state_size, slot), partial(context.save, slot, tokens)
                )


__all__ = ["BadLogits", "Engine"]
