"""The state of a running answer: constraint, sampler, detokenizer, stop texts and drafts."""

from collections import abc
from typing import Protocol

import numpy as np

from mixcli.engine.constraint import Constraint
from mixcli.engine.draft_model import DraftModel, ModelDrafts
from mixcli.engine.field_scores import FieldEnds, FieldScores, WrittenToken
from mixcli.engine.logprobs import token_logprobs
from mixcli.engine.prompt_lookup import PromptLookup
from mixcli.engine.sequence import FinishReason, Request, Sequence, TokenResult
from mixcli.engine.step_costs import StepCosts
from mixcli.engine.token_sampler import Logits, TokenSampler
from mixcli.llama.model import Vocab
from mixcli.prompts.answer_parser import Segment, joined
from mixcli.prompts.detokenizer import Detokenizer, StopMatcher

MAX_FORCED = 32  # tokens that are computed at once


class Drafts(Protocol):
    """A source of guesses for one sequence; `only_alone`: while no other request runs."""

    only_alone: bool

    def propose(self, tokens: abc.Sequence[int], n_others: int = 0) -> list[int]:
        """Return tokens that may come after `tokens`, for a step that computes tokens of `n_others` other requests."""

    def observe(self, n_drafted: int, n_accepted: int, n_others: int = 0) -> None:
        """Learn from a step with a draft."""


class Generation:
    """Owns the native sampler of one request, which may have been made elsewhere; `constraint` is its own too."""

    def __init__(
        self,
        request: Request,
        vocab: Vocab,
        n_ctx: int,
        constraint: Constraint | None,
        costs: StepCosts,
        draft_model: DraftModel | None = None,
        sampler: TokenSampler | None = None,
    ) -> None:
        self._request, self._vocab = request, vocab
        self._sampler = sampler or request.sampling.chooser(vocab, n_ctx, request.prompt)
        self._constraint = constraint
        self._detokenizer = Detokenizer(vocab, at_start=not request.continues_text)
        self._stops = StopMatcher(request.sampling.stop)
        self._parser = request.shape.parser() if request.shape else None
        self._n_reasoned = self._n_closing = 0  # tokens within the reasoning; of the mark that ends it
        self._drafts: list[Drafts] = [PromptLookup(costs)] if request.speculate else []
        if draft_model is not None and not request.deterministic:
            self._drafts.append(ModelDrafts(draft_model, costs))
        self._source: Drafts | None = None  # of the last draft; what the constraint forces has none
        self._n_others = 0
        self._n_room = n_room = n_ctx - len(request.prompt) + 1  # the last token need not be computed
        limit = request.sampling.max_tokens
        self._n_chosen = 0
        self._written: list[WrittenToken] = []  # where the fields of the answer are to be scored
        self._n_thought = 0  # of these, up to the end of the reasoning
        self._n_left = n_room if limit is None else min(n_room, limit)

    def draft(self, sequence: Sequence, n_others: int, *, alone: bool) -> None:
        """Draft what may come next: what the constraint forces, what the text so far suggests, or what a draft model guesses.

        `n_others` other requests write in the same step. The draft model guesses only while its request runs `alone`: of several, the large model
        computes the tokens together.
        """
        sequence.drafts, self._source, self._n_others = [], None, n_others
        if (n_max := self._n_left - 1) <= 0:
            return
        drafts = self._constraint.forced()[:MAX_FORCED] if self._constraint is not None else []
        for source in () if drafts else self._drafts:
            drafts = source.propose(sequence.tokens, n_others) if alone or not source.only_alone else []
            if drafts:
                self._source = source
                break
        sequence.drafts = drafts[:n_max]

    def observe(self, n_drafted: int, n_accepted: int) -> None:
        """Learn from the right guesses of a step; a draft that a constraint forced is not a guess."""
        if self._source is not None:
            self._source.observe(n_drafted, n_accepted, self._n_others)

    def choose(self, logits: Logits) -> TokenResult:
        """Choose the next token by a row of logits, shape (n_vocab,), which the constraint writes to; remember it."""
        if self._constraint is not None:
            self._constraint.mask(logits)
        self._close_reasoning(logits)
        token = self._choose(logits)
        if self._constraint is not None:
            self._constraint.accept(token)
        if self._vocab.is_end(token):
            segments, _ = self._ended()
            kept = segments if self._parser else ()
            return TokenResult(None, _content(segments), None, "stop", kept, self._stops.met)
        n_top = self._request.top_logprobs
        logprob = None if n_top is None else token_logprobs(logits, token, n_top)
        if self._request.fields is not None:
            self._written.append(WrittenToken(token, (logprob or token_logprobs(logits, token)).logprob))
        self._n_left -= 1
        self._n_chosen += 1
        thinks = self._parser is not None and self._parser.in_reasoning
        self._n_reasoned += thinks
        segments, stopped = self._read(token)
        thinks = thinks or (self._parser is not None and self._parser.in_reasoning)
        if thinks:
            self._n_thought = len(self._written)
        reason: FinishReason | None = "stop" if stopped else self._end()
        if reason is not None and not stopped:
            rest, _ = self._ended(cut=reason == "length")
            segments = joined((*segments, *rest))
        kept = segments if self._parser else ()
        return TokenResult(token, _content(segments), logprob, reason, kept, self._stops.met, thinks)

    def _close_reasoning(self, logits: Logits) -> None:
        """Where the reasoning has used its budget, forbid all but the next token of the mark after it.

        A constraint may not allow it yet, in the middle of a character: then it comes one token later.
        """
        shape = self._request.shape
        if shape is None or shape.thinking_budget is None or self._parser is None:
            return
        if not self._parser.in_reasoning or self._n_reasoned < shape.thinking_budget or not shape.closing:
            return
        token = shape.closing[self._n_closing % len(shape.closing)]
        if logits[token] == -np.inf:
            self._n_closing = 0
            return
        logits[:] = -np.inf
        logits[token] = 0
        self._n_closing += 1

    def _read(self, token: int) -> tuple[tuple[Segment, ...], bool]:
        """Return what a token adds that can be shown, and whether a stop text ended the answer."""
        if self._parser is None:
            text, stopped = self._stops.push(self._detokenizer.push(token))
            return (Segment("content", text),), stopped
        text = self._detokenizer.flush() if self._parser.marks(token) else self._detokenizer.push(token)
        return self._unstopped(self._parser.push(token, text))

    def _ended(self, *, cut: bool = False) -> tuple[tuple[Segment, ...], bool]:
        """Return what was held back, at the end of an answer that no stop text ended; `cut` is true at its maximum length."""
        text = self._detokenizer.flush()
        found = self._parser.flush(text, cut=cut) if self._parser else [Segment("content", text)]
        segments, stopped = self._unstopped(found)
        if not stopped and (held := self._stops.flush()):
            segments = (*segments, Segment("content", held))
        return segments, stopped

    def _unstopped(self, found: abc.Sequence[Segment]) -> tuple[tuple[Segment, ...], bool]:
        """Look for stop texts in content; what follows one is left out."""
        kept: list[Segment] = []
        for one in found:
            if one.kind != "content":
                held = self._stops.flush()
                kept += [Segment("content", held)] * bool(held) + [one]
                continue
            text, stopped = self._stops.push(one.text)
            kept += [Segment("content", text)] * bool(text)
            if stopped:
                return tuple(kept), True
        return tuple(kept), False

    def _choose(self, logits: Logits) -> int:
        """Choose a token; one that ends the answer only when it is long enough, or where the constraint allows no other."""
        if self._n_chosen >= self._request.sampling.min_tokens:
            return self._sampler.choose(logits)
        ends = list(self._vocab.ends)
        before = logits[ends]
        logits[ends] = -np.inf
        try:
            if self._constraint is not None and logits.max() == -np.inf:
                logits[ends] = before
            return self._sampler.choose(logits)
        finally:
            logits[ends] = before

    def _end(self) -> FinishReason | None:
        """Return why no token can come after this one: the constraint is complete, or the limit is reached."""
        if self._constraint is not None and self._constraint.is_complete:
            return "stop"
        return "length" if self._n_left <= 0 else None

    def fields(self, ends: FieldEnds) -> FieldScores | None:
        """Return the fields of the answer, which is whole; None where they are not asked for."""
        form = self._request.fields
        if form is None:
            return None
        return FieldScores(self._written, self._n_thought, form, self._vocab, ends, self._n_room - 1)

    def rest(self) -> tuple[str, tuple[Segment, ...]]:
        """Return the text that was held back, and with a parser its segments, at the end of an answer that no stop text ended."""
        segments, _ = self._ended()
        return _content(segments), segments if self._parser else ()

    def close(self) -> None:
        """Free the sampler."""
        self._sampler.close()


def _content(segments: abc.Sequence[Segment]) -> str:
    return "".join(one.text for one in segments if one.kind == "content")
