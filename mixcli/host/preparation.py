"""Prepare requests in threads beside the engine: templates, token ids, grammars.

There are two lanes, so that what takes long does not hold up the rest: a grammar that is not compiled yet and a long text go into the slow
one. In each lane the order is that of arrival. What can never fit is refused before it is split into tokens (min_tokens.py), and what waits
is bounded by the bytes that a host holds of all requests (intake.py).
"""

import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from mixcli.engine.constraint import Constraint
from mixcli.engine.engine import Engine
from mixcli.engine.expert_routing import ExpertRouting, routing
from mixcli.engine.faults import request_error
from mixcli.engine.sequence import Label, Request
from mixcli.errors import BadRequest, ContextOverflow, ModelDied
from mixcli.host.call import ChatQuestion
from mixcli.llama.loading import Loaded
from mixcli.prompts.answer_tokens import AnswerTokenCache
from mixcli.prompts.chat_format import ChatFormat, check
from mixcli.prompts.context_overflow import fitted
from mixcli.prompts.formats import Message
from mixcli.prompts.min_tokens import TokenBound

T = TypeVar("T")

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

    def put(self, work: Callable[[], T], n_characters: int, *, slow: bool = False) -> "Future[T]":
        """Do something in the lane that it belongs to; errors that are bugs are named in the future."""
        return self._submit(self._slow if slow or n_characters > QUICK else self._quick, work)

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
class Prepared:
    """What the engine takes, and how many messages of the conversation were left out."""

    request: Request
    constraint: Constraint | None
    n_dropped: int


@dataclass(frozen=True)
class Preparation:
    """Prepares questions for one loaded model; may be used from several threads."""

    loaded: Loaded
    format: ChatFormat
    answers: AnswerTokenCache
    engine: Engine

    def prepare(self, call_id: str, question: ChatQuestion) -> Prepared:
        """Make the engine's request of a question; raise BadRequest or ContextOverflow for one that can never run."""
        labels = self._labels(question) if question.choices else ()
        # what this process remembers must not change a deterministic prompt
        answers = AnswerTokenCache(self.loaded.model.vocab) if question.deterministic else self.answers
        prompt, n_dropped = fitted(
            answers.recall(question.messages),
            self.format.encode,
            self._n_ctx,
            question.sampling.max_tokens,
            question.on_overflow,
            self._least,
        )
        continues = question.messages[-1].role == "assistant"
        constraint = None
        if question.constraint is not None and not labels:
            constraint = self.engine.compile(question.constraint, at_start=not continues)
        request = Request(
            id=call_id,
            prompt=tuple(prompt),
            sampling=question.sampling,
            continues_text=continues,
            constraint=question.constraint,
            labels=labels,
            top_logprobs=question.top_logprobs,
            speculate=question.speculate,
            park=question.park,
            persist=question.persist,
            deterministic=question.deterministic,
        )
        return Prepared(request, constraint, n_dropped)

    def needs_grammar(self, question: ChatQuestion) -> bool:
        """Whether a constraint must be compiled first."""
        continues = question.messages[-1].role == "assistant" if question.messages else False
        return question.constraint is not None and not self.engine.has_compiled(
            question.constraint, at_start=not continues
        )

    def tokenize(self, messages: Sequence[Message] | None, text: str | None) -> list[int]:
        """Return the token ids of a conversation, ready for an answer, or of a text; raise BadRequest far beyond any context."""
        texts = [text or ""] if messages is None else [message.content for message in messages]
        limit = min(MAX_COUNTED, LONGEST_TOKEN * self._n_ctx) + FRAME
        if (n := sum(map(len, texts))) > limit:
            raise BadRequest(
                f"the text has {n:,} characters; the limit for one count is {limit:,}",
                param="prompt" if messages is None else "messages",
            )
        if messages is None:
            return self.format.tokenizer.encode(text or "")
        return self.format.encode(self.answers.recall(messages))

    def routing(self, messages: Sequence[Message]) -> ExpertRouting:
        """Return which experts the last message of a conversation was given to."""
        if not messages or messages[-1].role != "assistant":
            raise BadRequest("the last message must have the role assistant", param="messages")
        if (n := self._least(messages)) > self._n_ctx:
            raise ContextOverflow(n, self._n_ctx, at_least=True)
        before = self.format.encode(self.answers.recall(messages[:-1]))
        spoken = self.answers.recall([*messages, Message("user", "")])[len(messages) - 1]
        tokens = [*before, *(spoken.tokens or self.format.encode_answer(spoken.content))]
        if len(tokens) > self._n_ctx:
            raise ContextOverflow(len(tokens), self._n_ctx)
        return routing(self.loaded.model, self.loaded.placement, tokens, len(before))

    @property
    def _n_ctx(self) -> int:
        return self.loaded.context.n_ctx

    def _least(self, messages: Sequence[Message]) -> int:
        """Return a lower bound of a conversation's tokens; 0 at once for one with no more bytes than the context has tokens."""
        if 4 * sum(len(message.content) for message in messages) <= self._n_ctx:
            return 0
        check(messages)
        return self._bound.of(self.format.layout(messages))

    @cached_property
    def _bound(self) -> TokenBound:
        return TokenBound(self.loaded.model.vocab)

    def _labels(self, question: ChatQuestion) -> tuple[Label, ...]:
        """Return the choices as token ids, each as the assistant would write it behind this prompt."""
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
