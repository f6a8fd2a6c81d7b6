"""Answer about every part of a long text, then about the answers, until one is left."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixcli.batch.pool import Pool
from mixcli.errors import DoesNotFit
from mixcli.mapreduce.split import split
from mixcli.question import Question

SHARE_ANSWER = 1 / 6  # of the context for the answer to one part, where --max-tokens says nothing
SHARE_OVERLAP = 1 / 16  # of a part that it has in common with the one before
MARGIN = 32  # tokens: counts of pieces do not add up exactly, and the words that say which part it is
LEAST_ROOM = 64

Ask = Callable[[Mapping[str, Any], str], dict[str, Any]]
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Tokens:
    """Counts tokens as the model does: of a text, and of a whole conversation."""

    tokenize: Callable[[dict[str, Any]], dict[str, Any]]

    def of_text(self, text: str) -> int:
        return int(self.tokenize({"prompt": text})["count"])

    def of_messages(self, messages: list[dict[str, Any]]) -> tuple[int, int]:
        """Give the tokens of a conversation, and how many the context has."""
        found = self.tokenize({"messages": messages})
        return int(found["count"]), int(found["max_model_len"])


@dataclass(frozen=True)
class Room:
    """How the context is divided: `part` tokens for the text of a part, `answer` for what is said about it."""

    part: int
    answer: int


def room_for(n_ctx: int, n_frame: int, max_tokens: int | None) -> Room:
    """Divide a context of `n_ctx` tokens, of which everything but the text takes `n_frame`; DoesNotFit when too little is left.

    An answer gets a third of what is left at most, so that the answers of a level are fewer tokens than its parts, and it ends.
    """
    left = n_ctx - n_frame - MARGIN
    answer = min(max_tokens or int(n_ctx * SHARE_ANSWER), left // 3)
    part = left - answer
    if answer < 1 or part < LEAST_ROOM:
        raise DoesNotFit(
            f"the context has {n_ctx:,} tokens and the prompt takes {n_frame:,} of them without the text, "
            "which leaves too little for parts; ask for a larger one with --ctx, or shorten the prompt"
        )
    return Room(part, answer)


class MapReduce:
    """Answers one question about a text of any length; `window` parts are asked at a time."""

    def __init__(
        self,
        question: Question,
        body: Mapping[str, Any],
        ask: Ask,
        tokens: Tokens,
        window: int,
        progress: Progress,
    ) -> None:
        self._question, self._body, self._ask = question, body, ask
        self._tokens, self._window, self._progress = tokens, window, progress
        self._n_done = self._n_known = 0

    def last_messages(self, text: str) -> tuple[list[dict[str, Any]], int]:
        """Give the conversation that gives the whole answer, and how many parts were answered before: 0 where the text fits.

        Raises DoesNotFit when not even the prompt does, and what the asking raises.
        """
        messages = self._question.messages(text)
        max_tokens = self._body.get("max_tokens")
        n_frame, n_ctx = self._tokens.of_messages(self._question.messages(""))
        room = room_for(n_ctx, n_frame, max_tokens)
        while True:
            n_prompt, _ = self._tokens.of_messages(messages)
            if n_prompt + (max_tokens or room.answer) <= n_ctx:
                return messages, self._n_done
            parts = split(text, self._tokens.of_text, room.part, int(room.part * SHARE_OVERLAP))
            text = combined(self._answers(parts, room))
            messages = self._question.messages(text)

    def _answers(self, parts: Sequence[str], room: Room) -> list[str]:
        """Answer every part once; gives the answers in order."""
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

    def _answer(self, part: str, index: int, n_parts: int, room: Room) -> str:
        text = f"[Part {index + 1} of {n_parts} of a long text]\n\n{part}"
        body = {**self._body, "messages": self._question.messages(text), "max_tokens": room.answer}
        return str(self._ask(body, "")["choices"][0]["message"]["content"] or "").strip()


def combined(answers: Sequence[str]) -> str:
    """Give the answers about the parts as the text of the next question."""
    digits = int(math.log10(len(answers))) + 1
    found = (f"({index:0{digits}}) {answer}" for index, answer in enumerate(answers, 1))
    return "[What was found in the parts of a long text, in order]\n\n" + "\n\n".join(found)
