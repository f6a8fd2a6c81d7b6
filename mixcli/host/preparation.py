"""Prepare requests in threads beside the engine: templates, token ids, grammars.

There are two lanes, so that what takes long does not hold up the rest: a grammar that is not compiled yet and a long text go into the slow
one. In each lane the order is that of arrival. What can never fit is refused before it is split into tokens (min_tokens.py), and what waits
is bounded by the bytes that a host holds of all requests (intake.py).
"""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar

from mixcli.engine.answer_grammar import answer_grammar
from mixcli.engine.constraint import Constraint
from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.embedding import Vector, embeddings, pooling_of
from mixcli.engine.engine import Engine
from mixcli.engine.expert_routing import ExpertRouting, routing
from mixcli.engine.faults import IsOver, request_error
from mixcli.engine.field_scores import FieldForm
from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.prompt_logprobs import prompt_logprobs
from mixcli.engine.sequence import AnswerShape, Label, Request
from mixcli.engine.token_sampler import TokenSampler
from mixcli.errors import BadRequest, ContextOverflow, ModelDied
from mixcli.host.call import ChatQuestion
from mixcli.host.loose_tools import LooseTools
from mixcli.llama.loading import Loaded
from mixcli.prompts.answer_tokens import AnswerTokenCache
from mixcli.prompts.base_model import NO_FORMAT
from mixcli.prompts.chat_format import ChatFormat, check
from mixcli.prompts.context_overflow import fitted
from mixcli.prompts.detokenizer import Detokenizer
from mixcli.prompts.messages import NO_OPTIONS, Message, PromptOptions
from mixcli.prompts.min_tokens import TokenBound
from mixcli.prompts.raw_prompt import RawPrompt, RawPrompts

T = TypeVar("T")
Scores = list[TokenLogprobs | None]  # of the tokens of a prompt, None for the first

QUICK = 1 << 15  # characters that are split into tokens in a few milliseconds
LONGEST_TOKEN = 512  # characters for each token of the context that a text may have to be counted
MAX_COUNTED, FRAME = (
    1 << 24,
    1 << 20,
)  # characters of a text that may be counted at most, and of what stands around it
SWITCH = 0.001  # seconds until Python's threads take turns; the engine's thread waits for its turn several times a token


class Lanes:
    """Threads that work for the host beside the engine's, once the model is loaded."""

    def __init__(self) -> None:
        self._quick, self._slow, self._beside = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("quick", "slow", "beside")
        )
        for pool in (self._quick, self._slow, self._beside):
            pool.submit(int)  # the watchdog knows a thread before it works
        self._loaded = threading.Event()
        sys.setswitchinterval(SWITCH)

    def open(self) -> None:
        """Begin to work, or to fail what waits, as the load ended."""
        self._loaded.set()

    def close(self) -> None:
        """Drop what has not begun."""
        for pool in (self._quick, self._slow, self._beside):
            pool.shutdown(wait=False, cancel_futures=True)
        self._loaded.set()

    def put(self, work: Callable[[], T], *, slow: bool) -> "Future[T]":
        """Do something in the lane of what takes milliseconds, or seconds; errors that are bugs are named in the future."""
        return self._submit(self._slow if slow else self._quick, work)

    def put_beside(self, work: Callable[[], T]) -> "Future[T]":
        """Do something that computes for long, one at a time."""
        return self._submit(self._beside, work)

    def _submit(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> "Future[T]":
        try:
            return pool.submit(self._work, work)
        except RuntimeError:  # closed
            future: Future[T] = Future()
            future.set_exception(ModelDied("the model is unloading; retry to load it again"))
            return future

    def _work(self, work: Callable[[], T]) -> T:
        self._loaded.wait()
        try:
            return work()
        except Exception as error:
            raise request_error(error) from None


@dataclass(frozen=True)
class Features:
    """What a model can be used for: capabilities by Mistral's names, and the values of reasoning_effort, the default first."""

    capabilities: Mapping[str, bool]
    reasoning_efforts: tuple[str, ...]


NO_FEATURES = Features({}, ())  # of a model that is not loaded yet


@dataclass(frozen=True)
class Prepared:
    """What the engine takes, and how many messages of the conversation were left out."""

    request: Request
    constraint: Constraint | None
    sampler: TokenSampler | None  # of an answer that is not one of several labels
    n_dropped: int


@dataclass(frozen=True)
class Preparation:
    """Prepares questions for one loaded model; may be used from several threads."""

    loaded: Loaded
    format: ChatFormat
    answers: AnswerTokenCache
    engine: Engine
    loose_tools: LooseTools = field(default_factory=LooseTools)

    def prepare(self, call_id: str, question: ChatQuestion) -> Prepared:
        """Make the engine's request of a question; raise BadRequest or ContextOverflow for one that can never run."""
        labels = self._labels(question) if question.choices else ()
        prompt, n_dropped = question.shared_prompt.get(question, lambda: self._encoded(question))
        shape = None if labels or question.raw else self._shape(question, prompt)
        constraint = None if labels else self._constraint(question, shape)
        vocab = self.loaded.model.vocab
        sampler = None if labels else question.sampling.chooser(vocab, self._n_ctx, prompt)
        request = Request(
            id=call_id,
            prompt=tuple(prompt),
            sampling=question.sampling,
            continues_text=question.continues_text,
            constraint=constraint.spec if constraint else None,
            labels=labels,
            top_logprobs=question.top_logprobs,
            speculate=question.speculate and self.loaded.placement.speculates,
            park=question.park,
            persist=question.persist,
            deterministic=question.deterministic,
            shape=shape,
            fields=self._fields(question) if question.field_probs else None,
        )
        return Prepared(request, constraint, sampler, n_dropped)

    def _fields(self, question: ChatQuestion) -> FieldForm:
        """Return what is needed to score the fields of an answer in JSON."""
        schema = question.constraint.text if question.constraint else ""
        return FieldForm(schema or "{}", self.format.tokenizer.encode_rest)

    def _encoded(self, question: ChatQuestion) -> tuple[Sequence[int], int]:
        return (self.encode_raw(question.raw), 0) if question.raw else self._conversation(question)

    def _shape(self, question: ChatQuestion, prompt: Sequence[int]) -> AnswerShape | None:
        """Return what the answer may have beside content; None for content only."""
        syntax = self.format.syntax
        if not question.tool_use.tools and syntax.reasoning is None:
            return None
        vocab, budget = self.loaded.model.vocab, question.thinking_budget
        closing = () if budget is None else syntax.closing(vocab)
        opened = syntax.opens_reasoning(prompt, vocab)
        return AnswerShape(syntax, bool(question.tool_use.callable), opened, budget, closing)

    def _constraint(self, question: ChatQuestion, shape: AnswerShape | None) -> Constraint | None:
        """Return what the answer is held to, compiled. Of tools that are not strict, schemas that are too complex are not enforced."""

        def compiled(free: frozenset[str]) -> Constraint | None:
            spec = self._grammar(question, shape, free)
            return self.engine.compile(spec, at_start=not question.continues_text) if spec else None

        use = question.tool_use
        try:
            return compiled(self.loose_tools.known(use))
        except BadRequest:
            if (free := self.loose_tools.found(use, self.engine)) is None:
                raise
            return compiled(free)

    def _grammar(
        self,
        question: ChatQuestion,
        shape: AnswerShape | None,
        free: frozenset[str] = frozenset(),
    ) -> ConstraintSpec | None:
        if shape is None:
            return question.constraint
        opened = shape.in_reasoning
        return answer_grammar(
            shape.syntax, question.tool_use, question.constraint, free=free, in_reasoning=opened
        )

    def _conversation(self, question: ChatQuestion) -> tuple[list[int], int]:
        """Return the token ids of a conversation, and how many of its messages were left out."""
        # what this process remembers must not change a deterministic prompt
        answers = AnswerTokenCache(self.loaded.model.vocab) if question.deterministic else self.answers
        return fitted(
            answers.recall(self._checked(question.messages)),
            partial(self.format.encode, options=question.prompt_options),
            self._n_ctx,
            question.sampling.max_tokens,
            question.on_overflow,
            partial(self._least, options=question.prompt_options),
        )

    def encode_raw(self, prompt: RawPrompt, param: str = "prompt") -> list[int]:
        """Return the token ids of a prompt without a conversation; raise ContextOverflow or BadRequest for one that can never run."""
        texts = [prompt.text, prompt.suffix or ""]
        if 4 * prompt.n_characters > self._n_ctx and (n := self._bound.of(texts)) > self._n_ctx:
            raise ContextOverflow(n, self._n_ctx, at_least=True, param=param)
        tokens = self.raw_prompts.encode(prompt)
        if not tokens:
            raise BadRequest(f"{param} is empty; send text or token ids", param=param)
        self._check_tokens(tokens, param)
        if len(tokens) > self._n_ctx:
            raise ContextOverflow(len(tokens), self._n_ctx, param=param)
        return tokens

    def _checked(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return messages whose own token ids are in the vocabulary; raise BadRequest for others."""
        for i, message in enumerate(messages):
            self._check_tokens(message.tokens, f"messages.{i}.token_ids")
        return messages

    def _check_tokens(self, tokens: Sequence[int], param: str) -> None:
        n_vocab = self.loaded.model.vocab.n_tokens
        if not all(0 <= token < n_vocab for token in tokens):
            raise BadRequest(f"{param} has token ids outside 0 to {n_vocab - 1:,}", param=param)

    def needs_grammar(self, question: ChatQuestion) -> bool:
        """Return whether a constraint must be compiled first."""
        if question.choices or (question.constraint is None and not question.tool_use.tools):
            return False
        try:
            spec = self._grammar(question, None if question.raw else self._shape(question, ()))
        except BadRequest:  # which is reported when it is prepared
            return False
        return spec is not None and not self.engine.has_compiled(spec, at_start=not question.continues_text)

    def tokenize(
        self, asked: Sequence[Message] | RawPrompt, options: PromptOptions = NO_OPTIONS
    ) -> list[int]:
        """Return the token ids of a conversation, ready for an answer, or of a text; raise BadRequest far beyond any context."""
        is_raw = isinstance(asked, RawPrompt)
        n = asked.n_characters if isinstance(asked, RawPrompt) else sum(one.n_characters for one in asked)
        limit = min(MAX_COUNTED, LONGEST_TOKEN * self._n_ctx) + FRAME
        if n > limit:
            raise BadRequest(
                f"the text is {n:,} characters long; the limit for one count is {limit:,}",
                param="prompt" if is_raw else "messages",
            )
        if isinstance(asked, RawPrompt):
            return self.raw_prompts.encode(asked)
        return self.format.encode(self.answers.recall(self._checked(asked)), options)

    def detokenize(self, tokens: Sequence[int]) -> str:
        """Return the text of token ids, control tokens by their names; raise BadRequest for an id that the vocabulary does not have."""
        self._check_tokens(tokens, "tokens")
        vocab = self.loaded.model.vocab
        detokenizer, text = Detokenizer(vocab), []
        for token in tokens:
            is_control = bool(vocab.attributes(token) & (vocab.CONTROL | vocab.UNKNOWN))
            text.append(detokenizer.flush() + vocab.text(token) if is_control else detokenizer.push(token))
        return "".join([*text, detokenizer.flush()])

    def rendered(self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> str:
        """Return a conversation as the model sees it, control tokens by their names."""
        vocab = self.loaded.model.vocab
        parts = self.format.parts(self._checked(messages), options)
        return "".join(part if isinstance(part, str) else vocab.text(part) for part in parts)

    def prompt_logprobs(self, tokens: Sequence[int], n_top: int, is_over: IsOver) -> Scores:
        """Return the log-probabilities of a prompt's tokens; None for the first."""
        return prompt_logprobs(self.loaded.model, self.loaded.placement, tokens, n_top, is_over)

    def embeddings(self, prompts: Sequence[RawPrompt], is_over: IsOver) -> tuple[list[Vector], int]:
        """Return the embedding of each text, and the tokens of all; raise BadRequest where the model is not made for it."""
        pooling = pooling_of(self.loaded.model)
        if pooling is None:
            raise BadRequest(
                f"{self.loaded.model.path.stem} is not an embedding model: it has no pooling type; "
                "serve one that was trained for embeddings",
                param="model",
            )
        tokens = [self.encode_raw(prompt, "input") for prompt in prompts]
        vectors = embeddings(self.loaded.model, self.loaded.placement, tokens, pooling, is_over)
        return vectors, sum(map(len, tokens))

    def features(self) -> Features:
        """Return what the model can be used for."""
        is_embedder = pooling_of(self.loaded.model) is not None
        capabilities = {
            "completion_chat": self.format.name != NO_FORMAT and not is_embedder,
            "completion_fim": self.raw_prompts.has_infill,
            "function_calling": self.format.name != NO_FORMAT and not is_embedder,
            "vision": False,
            "embeddings": is_embedder,
        }
        return Features(capabilities, self.format.efforts)

    def routing(self, messages: Sequence[Message], is_over: IsOver) -> ExpertRouting:
        """Return which experts the last message of a conversation was given to."""
        if not messages or messages[-1].role != "assistant":
            raise BadRequest("the last message must have the role assistant", param="messages")
        if (n := self._least(messages)) > self._n_ctx:
            raise ContextOverflow(n, self._n_ctx, at_least=True)
        before = self.format.encode(self.answers.recall(self._checked(messages)[:-1]))
        spoken = self.answers.recall([*messages, Message("user", "")])[len(messages) - 1]
        tokens = [*before, *(spoken.tokens or self.format.encode_answer(spoken.content))]
        if len(tokens) > self._n_ctx:
            raise ContextOverflow(len(tokens), self._n_ctx)
        return routing(self.loaded.model, self.loaded.placement, tokens, len(before), is_over)

    @property
    def _n_ctx(self) -> int:
        return self.loaded.context.n_ctx

    def _least(self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> int:
        """Return a lower bound of a conversation's tokens; 0 at once for one with no more bytes than the context has tokens."""
        if 4 * (options.n_characters + sum(message.n_characters for message in messages)) <= self._n_ctx:
            return 0
        check(messages)
        return self._bound.of(self.format.layout(messages, options))

    @cached_property
    def raw_prompts(self) -> RawPrompts:
        """Return what encodes prompts without a conversation."""
        return RawPrompts(self.loaded.model.vocab, self.format.tokenizer)

    @cached_property
    def _bound(self) -> TokenBound:
        return TokenBound(self.loaded.model.vocab)

    def _labels(self, question: ChatQuestion) -> tuple[Label, ...]:
        """Return the choices as token ids, each as the assistant would write it after this prompt."""
        labels: dict[tuple[int, ...], Label] = {}
        for choice in question.choices:
            if 4 * len(choice) > self._n_ctx and (n := self._bound.of([choice])) > self._n_ctx:
                raise ContextOverflow(n, self._n_ctx, what="a label", at_least=True)
            tokens = tuple(self.format.encode_answer(choice))
            if not tokens or tokens in labels:
                raise BadRequest(
                    f"the choice {choice!r:.60} is empty or a duplicate", param="structured_outputs.choice"
                )
            labels[tokens] = Label(choice, tokens)
        return tuple(labels.values())
