"""Answer each part of a long text, then combine the answers until one is left."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mixcli.batch.window import Pool
from mixcli.client.completions import choice_of
from mixcli.errors import DoesNotFit, MixcliError
from mixcli.host.protocol.answers import ChatCompletion, TokenCount
from mixcli.host.protocol.messages import ChatBody
from mixcli.request.prompt import ChatTurn, PromptSpec
from mixcli.run.split import split

SHARE_ANSWER = 1 / 6  # of the context for the answer to one part, where --max-tokens says nothing
SHARE_OVERLAP = 1 / 16  # of a part that it has in common with the one before
MARGIN = 32  # tokens: counts of pieces do not add up exactly, and each part gets a heading
MIN_ROOM = 64
LONGEST_TOKEN = (
    512  # bytes: a text with more bytes than that for every token of the context is too long, uncounted
)
MAX_COUNTED = 1 << 24  # bytes that a host counts at once
SHRINKS = 0.9  # of a level's tokens that the next one may have at most; the levels end because of it

Ask = Callable[[ChatBody, str], ChatCompletion]
Progress = Callable[[int, int, str], None]


class TokenCounter(Protocol):
    """What counts tokens as a model does; a client."""

    def count_text(self, text: str) -> TokenCount: ...
    def count_messages(self, messages: Sequence[ChatTurn]) -> TokenCount: ...


@dataclass(frozen=True)
class Tokens:
    """Counts tokens as the model does: of a text, and of a whole conversation; MixcliError where the server cannot."""

    counter: TokenCounter

    def of_text(self, text: str) -> int:
        return _known(self.counter.count_text(text).count, "count")

    def of_messages(self, messages: Sequence[ChatTurn]) -> tuple[int, int]:
        """Return the tokens of a conversation, and how many the context has."""
        found = self.counter.count_messages(messages)
        return _known(found.count, "count"), _known(found.max_model_len, "max_model_len")


def _known(number: int | None, name: str) -> int:
    if number is None:
        raise MixcliError(
            f"the server's /tokenize returns no {name}, which --on-overflow map-reduce needs; use vLLM or mixcli serve"
        )
    return number


@dataclass(frozen=True)
class PartBudget:
    """How the context is divided: `part` tokens for the text of a part, `answer` for what is said about it, `whole` for the last answer."""

    part: int
    answer: int
    whole: int


def room_for(n_ctx: int, n_frame: int, max_tokens: int | None) -> PartBudget:
    """Divide a context of `n_ctx` tokens, of which everything but the text takes `n_frame`; DoesNotFit when too little is left.

    An answer gets a quarter of what is left at most: two or more fit into a part of the next level, which so has half as many.
    """
    left = n_ctx - n_frame - MARGIN
    answer = min(max_tokens or int(n_ctx * SHARE_ANSWER), left // 4)
    part = left - answer
    if answer < 1 or part < MIN_ROOM:
        raise DoesNotFit(
            f"the context has {n_ctx:,} tokens and the prompt takes {n_frame:,} of them without the text, "
            "which leaves too little for parts; pass a larger --ctx or shorten the prompt"
        )
    return PartBudget(part, answer, min(max_tokens or answer, left // 2))


@dataclass(frozen=True)
class Size:
    """How long the text of a level is; tokens are infinite where it is so long that they were not counted."""

    n_tokens: float
    n_bytes: float

    def is_less_than(self, before: "Size") -> bool:
        """Return whether it is clearly shorter than the level before: that every level is, ends them."""
        if math.isfinite(self.n_tokens) and math.isfinite(before.n_tokens):
            return self.n_tokens <= before.n_tokens * SHRINKS
        return self.n_bytes <= before.n_bytes * SHRINKS


class MapReduce:
    """Answers one question about a text of any length; `window` parts are asked at a time."""

    def __init__(
        self,
        question: PromptSpec,
        body: ChatBody,
        ask: Ask,
        tokens: Tokens,
        window: int,
        progress: Progress,
    ) -> None:
        self._question, self._body, self._ask = question, body, ask
        self._tokens, self._window, self._progress = tokens, window, progress
        self._n_done = self._n_known = self._n_longest = 0

    def last_messages(self, text: str) -> tuple[tuple[ChatTurn, ...], int]:
        """Return the conversation that returns the whole answer, and how many parts were answered before: 0 where the text fits.

        Raises DoesNotFit when not even the prompt does, and what the asking raises.
        """
        n_frame, n_ctx = self._tokens.of_messages(self._question.messages(""))
        room = room_for(n_ctx, n_frame, self._body.max_tokens)
        before = Size(math.inf, math.inf)
        while True:
            messages = self._question.messages(text)
            n_bytes = len(text.encode("utf-8", "replace"))
            n_tokens: float = math.inf
            if n_bytes <= min(n_ctx * LONGEST_TOKEN, MAX_COUNTED):
                n_prompt, _ = self._tokens.of_messages(messages)
                if n_prompt + room.whole <= n_ctx:
                    return messages, self._n_done
                n_tokens = n_prompt - n_frame
            now = Size(n_tokens, n_bytes)
            if not now.is_less_than(before):
                raise self._no_shorter(now, before, room)
            before = now
            parts = split(text, self._tokens.of_text, room.part, int(room.part * SHARE_OVERLAP))
            text = combined(self._answers(parts, room))

    def _no_shorter(self, now: Size, before: Size, room: PartBudget) -> DoesNotFit:
        """Return the error of a level whose answers are as long as what they are about."""
        if self._n_longest > room.answer:
            return DoesNotFit(
                f"the server ignores max_tokens: the answer to a part is {self._n_longest:,} tokens long, {room.answer:,} were allowed; "
                "--on-overflow map-reduce needs a server that limits answers"
            )
        return DoesNotFit(
            f"the answers to the parts are too long: {now.n_bytes:,} bytes for {before.n_bytes:,} bytes of text; "
            "ask for shorter answers, lower --max-tokens or raise --ctx"
        )

    def _answers(self, parts: Sequence[str], room: PartBudget) -> list[str]:
        """Answer every part once; returns the answers in order."""
        self._n_known += len(parts)
        pool: Pool[tuple[int, str], tuple[int, str]] = Pool(
            lambda task: (task[0], self._answer(task[1], task[0], len(parts), room)),
            self._window,
            self._window * 2,
        )
        answers: dict[int, str] = {}
        for index, answer in pool.results(enumerate(parts)):
            answers[index] = answer
            self._n_done += 1
            self._progress(self._n_done, self._n_known, f"part {len(answers)} of {len(parts)}")
            pool.release()
        return [answers[index] for index in range(len(parts))]

    def _answer(self, part: str, index: int, n_parts: int, room: PartBudget) -> str:
        text = f"[Part {index + 1} of {n_parts} of a long text]\n\n{part}"
        body = self._body._replace(
            messages=self._question.messages(text),
            options={**self._body.options, "max_tokens": room.answer},
        )
        answer = self._ask(body, "")
        self._n_longest = max(self._n_longest, answer.usage.completion_tokens or 0)
        return choice_of(answer).text.strip()


def combined(answers: Sequence[str]) -> str:
    """Return the answers about the parts as the text of the next question."""
    digits = int(math.log10(len(answers))) + 1
    found = (f"({index:0{digits}}) {answer}" for index, answer in enumerate(answers, 1))
    return "[What was found in the parts of a long text, in order]\n\n" + "\n\n".join(found)
