"""The built-in chat formats: ChatML and Mistral's, as in their authors' reference tokenizers.

A layout maps messages to parts: an int is a token, a str is one run of text that is tokenized on its own. Where the last message
is the assistant's, its end is omitted, so that the model continues it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mixcli.llama.model import Vocab

Part = int | str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user or assistant.

    `tokens` are the ids that a model's own answer was sampled as; with them it is never tokenized again.
    """

    role: str
    content: str
    tokens: tuple[int, ...] = ()

    @property
    def spelled(self) -> tuple["Part", ...]:
        """The content as parts: its own tokens where they are known."""
        return self.tokens or (self.content,)


Layout = Callable[[Sequence[Message]], Iterable[Part]]


def chatml(vocab: Vocab, default_system: str | None) -> Layout:
    """<|im_start|>role, a newline, the text, <|im_end|>, a newline; `default_system` speaks where no system message does."""
    start, end = vocab.specials["<|im_start|>"], vocab.specials["<|im_end|>"]

    def layout(messages: Sequence[Message]) -> Iterator[Part]:
        if vocab.adds_bos:
            yield vocab.bos
        if default_system is not None and messages[0].role != "system":
            messages = [Message("system", default_system), *messages]
        for message in messages:
            yield start
            if message.tokens:
                yield f"{message.role}\n"
                yield from message.tokens
            else:
                yield f"{message.role}\n{message.content}"
            if message is messages[-1] and message.role == "assistant":
                return
            yield end
            yield "\n"
        yield start
        yield "assistant\n"

    return layout


def mistral_v1(vocab: Vocab) -> Layout:
    """Mistral 7B v0.1/v0.2 and Mixtral 8x7B: [INST] and [/INST] are plain text; the system text opens the first user turn."""

    def layout(messages: Sequence[Message]) -> Iterator[Part]:
        yield vocab.bos
        turns = _with_system(messages, first=True)
        for turn in turns:
            if turn.role == "user":
                yield f"[INST] {turn.content} [/INST]"
            else:
                yield from turn.spelled
                if turn is not turns[-1]:
                    yield vocab.eos

    return layout


def mistral_v3(vocab: Vocab) -> Layout:
    """Formats v2 and v3 (Mistral 7B v0.3, Mixtral 8x22B Instruct, Nemo): control tokens; the system text opens the last user turn."""
    inst, end_inst = vocab.specials["[INST]"], vocab.specials["[/INST]"]

    def layout(messages: Sequence[Message]) -> Iterator[Part]:
        yield vocab.bos
        turns = _with_system(messages, first=False)
        for turn in turns:
            if turn.role == "user":
                yield from (inst, turn.content, end_inst)
            else:
                yield from turn.tokens or (turn.content.rstrip(" "),)
                if turn is not turns[-1]:
                    yield vocab.eos

    return layout


def mistral_v7(vocab: Vocab) -> Layout:
    """Format v7 (Mistral Large 2411, Small 3): system messages stand where they are, between control tokens of their own."""
    inst, end_inst = vocab.specials["[INST]"], vocab.specials["[/INST]"]
    system, end_system = vocab.specials["[SYSTEM_PROMPT]"], vocab.specials["[/SYSTEM_PROMPT]"]

    def layout(messages: Sequence[Message]) -> Iterator[Part]:
        yield vocab.bos
        turns = _joined(messages, apart="system")
        for turn in turns:
            if turn.role == "system":
                yield from (system, turn.content, end_system)
            elif turn.role == "user":
                yield from (inst, turn.content, end_inst)
            else:
                yield from turn.tokens or (turn.content.rstrip(" "),)
                if turn is not turns[-1]:
                    yield vocab.eos

    return layout


def _joined(messages: Sequence[Message], apart: str | None = None) -> list[Message]:
    """Join neighbors of one role by an empty line, as Mistral's reference does; those of the role `apart` stay single."""
    turns: list[Message] = []
    for role, group in groupby(messages, key=lambda message: message.role):
        neighbours = list(group)
        if role == apart or len(neighbours) == 1:
            turns += neighbours
        else:
            turns.append(Message(role, "\n\n".join(m.content for m in neighbours if m.content)))
    return turns


def _with_system(messages: Sequence[Message], *, first: bool) -> list[Message]:
    """Return the user and assistant turns, with all system texts at the head of the first or the last user turn."""
    system = "\n\n".join(m.content for m in messages if m.role == "system" and m.content)
    turns = [turn for turn in _joined(messages) if turn.role != "system"]
    if not turns or turns[0].role != "user":
        turns.insert(0, Message("user", ""))
    if system:
        users = [i for i, turn in enumerate(turns) if turn.role == "user"]
        at = users[0 if first else -1]
        turns[at] = replace(turns[at], content=f"{system}\n\n{turns[at].content}")
    return turns
