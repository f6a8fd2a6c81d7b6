"""A request and its state in the engine: inputs, computed tokens, usage and timings."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import Literal

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.field_scores import FieldForm, FieldProbability, FieldScores
from mixcli.engine.labels import LabelScores
from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sampling import SamplingParams
from mixcli.errors import MixcliError
from mixcli.prompts.answer_parser import AnswerParser, Segment, joined
from mixcli.prompts.answer_syntax import AnswerSyntax

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True)
class Label:
    """One of the texts that an answer may be, and its token ids."""

    text: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class AnswerShape:
    """What an answer may have beside content: calls of tools where it `expects_calls`, and reasoning, opened by the prompt or by the model.

    After `thinking_budget` tokens of reasoning only `closing` may come, the token ids of the mark after it; None for no limit.
    """

    syntax: AnswerSyntax
    expects_calls: bool = False
    in_reasoning: bool = False
    thinking_budget: int | None = None
    closing: tuple[int, ...] = ()

    def parser(self) -> AnswerParser:
        """Return what parses one answer."""
        return AnswerParser(self.syntax, expects_calls=self.expects_calls, in_reasoning=self.in_reasoning)


@dataclass(frozen=True)
class Request:
    """What the engine is asked for: continue `prompt` (token ids) as `sampling` says.

    `continues_text` is true if the prompt ends in the middle of a text that the answer continues. With `labels` nothing is
    sampled: the most likely is the answer. `constraint` lets only tokens through that keep to a schema or grammar. `top_logprobs` (0 to 20,
    None for none) asks for log-probabilities, `speculate` for drafts out of the text so far. `park` keeps the answer in the KV cache for a next turn; without it
    only what others begin with too is kept. `persist` writes what is kept to disk when the process ends. `deterministic` computes the
    same bits whatever runs before, beside and after it: alone in the cache, in pieces that begin at fixed places; `park` and `persist`
    mean nothing then. With a `shape` the answer is split into segments; stop texts are looked for in its content only. With `fields` the
    fields of a JSON answer are scored once it is written.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    continues_text: bool = False
    constraint: ConstraintSpec | None = None
    labels: tuple[Label, ...] = ()
    top_logprobs: int | None = None
    speculate: bool = False
    park: bool = True
    persist: bool = False
    deterministic: bool = False
    shape: AnswerShape | None = None
    fields: FieldForm | None = None


@dataclass(frozen=True)
class Usage:
    """What a finished request cost: tokens, and seconds in the queue, in prefill and in decode.

    `n_cached` of the `n_prompt` tokens were already in the KV cache; of `n_drafted` guessed tokens `n_accepted` were right.
    `seconds_decode` counts from the first token to the last, so the speed is (n_generated - 1) / seconds_decode.
    """

    n_prompt: int
    n_cached: int
    n_generated: int
    seconds_queue: float
    seconds_prefill: float
    seconds_decode: float
    n_drafted: int = 0
    n_accepted: int = 0
    n_reasoning: int = 0  # of the generated tokens, those of the reasoning and its marks


@dataclass(frozen=True)
class Progress:
    """How far a prompt has been read: tokens in all, from the cache, done (the cached ones included), and seconds so far."""

    n_prompt: int
    n_cached: int
    n_done: int
    seconds: float


@dataclass(frozen=True)
class TokenResult:
    """One choice: the token (None for one that ends the answer), the text that can be shown with it, and why the answer ends here, if so.

    `segments` are that text and what is beside it, where the request asked for a shape.
    `stop` is the stop text that ended it. `thinks` says that the token belongs to the reasoning.
    """

    token: int | None
    text: str
    logprob: TokenLogprobs | None = None
    finish_reason: FinishReason | None = None
    segments: tuple[Segment, ...] = ()
    stop: str | None = None
    thinks: bool = False


@dataclass(frozen=True)
class Output:
    """What one step brought for one request; the last one has `finish_reason` and `usage`, and `stop` where a stop text ended the answer.

    `label_probs` are in the order of the request's labels and sum to one. A `progress` comes while the prompt is read. With an
    `error` the request is over too. `segments` are the text and what is beside it, of a request with a shape.
    """

    id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    label_probs: tuple[float, ...] = ()
    progress: Progress | None = None
    error: MixcliError | None = None
    segments: tuple[Segment, ...] = ()
    stop: str | None = None
    fields: tuple[FieldProbability, ...] = ()

    @classmethod
    def of(cls, request_id: str, results: Iterable[TokenResult]) -> "Output":
        """Join what one step chose, in order; only the last result may end the answer."""
        chosen = tuple(results)
        return cls(
            request_id,
            "".join(one.text for one in chosen),
            tuple(one.token for one in chosen if one.token is not None),
            chosen[-1].finish_reason if chosen else None,
            logprobs=tuple(one.logprob for one in chosen if one.logprob is not None),
            segments=joined([segment for one in chosen for segment in one.segments]),
            stop=chosen[-1].stop if chosen else None,
        )

    @property
    def is_last(self) -> bool:
        return self.finish_reason is not None or self.error is not None


class SequenceStatus(Enum):
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(eq=False)
class Sequence:
    """A request's state: its tokens so far, how many of them are computed, which slot of the KV cache holds them, and its clocks.

    `n_computed` counts the tokens whose keys and values are in the KV cache; `n_cached` those that were there before it began.
    `drafts` are what the next decode tries after the last token. `scores` are
    those of labels, where the request has some: then the tokens after the prompt are the path to the branch that is computed.
    `fields` are those of an answer that is written: then `scores` are theirs, and `n_written` counts its tokens. Labels begin after the
    first `n_base` tokens: the prompt, and of a written answer what stands before the first of these fields.
    """

    request: Request
    tokens: list[int] = field(init=False)
    scores: LabelScores | None = None
    fields: FieldScores | None = None
    n_written: int = 0
    status: SequenceStatus = SequenceStatus.WAITING
    slot: int | None = None
    n_computed: int = 0
    n_cached: int = 0
    drafts: list[int] = field(default_factory=list)
    n_drafted: int = 0
    n_accepted: int = 0
    n_reasoning: int = 0
    n_started: int = 0

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt)
        self._added = self._started = self._first_token = self._last_token = perf_counter()

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def n_prompt(self) -> int:
        return len(self.request.prompt)

    @property
    def n_base(self) -> int:
        return self.n_prompt + (self.fields.n_kept if self.fields is not None else 0)

    @property
    def n_generated(self) -> int:
        return len(self.tokens) - self.n_prompt

    @property
    def n_missing(self) -> int:
        """Tokens that must be computed before the next one can be chosen."""
        return len(self.tokens) - self.n_computed

    @property
    def is_decoding(self) -> bool:
        """Return whether only the last token is missing."""
        return self.status is SequenceStatus.RUNNING and self.n_missing == 1

    @property
    def scores_labels(self) -> bool:
        """Return whether the prompt and the path are computed, and the next branches of the labels can be chosen."""
        return self.scores is not None and self.n_missing == 0 and not self.scores.is_complete

    @property
    def n_needed(self) -> int:
        """Cells that it certainly takes beyond those that it has."""
        n_path = self.scores.n_longest if self.scores is not None else 0
        return max(self.n_missing, self.n_base + n_path - self.n_computed)

    def n_logits(self, start: int, n_tokens: int) -> int:
        """Behind how many of the last tokens of a piece, which begins at `start`, logits are wanted."""
        if self.scores is not None:
            return max(0, start + n_tokens - max(start, self.n_base - 1))
        return int(start + n_tokens == len(self.tokens))

    def start(self, slot: int, n_cached: int) -> None:
        """Begin to compute, or begin again after others needed the room, with `n_cached` tokens already in the KV cache."""
        self.status, self.slot, self.n_computed = SequenceStatus.RUNNING, slot, n_cached
        if not self.n_started:
            self.n_cached, self._started = n_cached, perf_counter()
        self.n_started += 1

    def wait(self) -> None:
        """Go back to the queue with the tokens so far; what was computed is forgotten."""
        self.status, self.slot = SequenceStatus.WAITING, None
        self.n_computed, self.drafts = 0, []
        self.leave_path()

    def leave_path(self) -> None:
        """Forget the path to a branch of labels: what was learned stays in the scores."""
        if self.scores is not None:
            del self.tokens[self.n_base :]
            self.scores.restart()

    def append(self, token: int) -> None:
        """Take a chosen token."""
        self.tokens.append(token)
        self._last_token = perf_counter()
        if self.n_generated == 1:
            self._first_token = self._last_token

    def score_fields(self, fields: FieldScores) -> None:
        """Begin to score the fields of the answer, which is whole; its tokens after the base are forgotten."""
        self.n_written = self.n_generated
        self.fields, self.scores, self.drafts = fields, fields.scores, []
        del self.tokens[self.n_base :]

    def progress(self) -> Progress:
        """Return how far the prompt has been read."""
        return Progress(self.n_prompt, self.n_cached, self.n_computed, perf_counter() - self._started)

    def finish(self) -> Usage:
        """Record the times of the finished request."""
        now = perf_counter()
        self.status = SequenceStatus.FINISHED
        self.leave_path()
        started = self._started if self.n_started else now
        n_generated = self.n_written or self.n_generated
        first = self._first_token if n_generated else now
        return Usage(
            n_prompt=self.n_prompt,
            n_cached=self.n_cached,
            n_generated=n_generated,
            seconds_queue=started - self._added,
            seconds_prefill=first - started,
            seconds_decode=self._last_token - first if n_generated else 0.0,
            n_drafted=self.n_drafted,
            n_accepted=self.n_accepted,
            n_reasoning=self.n_reasoning,
        )
