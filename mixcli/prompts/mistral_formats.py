"""Mistral's chat formats with control tokens, versions 2 to 15, as Mistral's reference tokenizer encodes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

from mixcli.errors import BadRequest
from mixcli.llama.model import Vocab
from mixcli.prompts.messages import NO_OPTIONS, Layout, Message, Part, PromptOptions, ToolCall
from mixcli.prompts.tool_json import arguments_of, dumped, nine, value_of
from mixcli.prompts.turns import in_order_of_calls, joined, with_system

Manner = Literal["reference", "joined", "single"]
DefaultSystem = Callable[[], Sequence[Part]]  # a system message as of now: some have the date

MANNERS: tuple[Manner, ...] = get_args(Manner)
VERSIONS = (15, 13, 11, 7, 3, 2)
WITH_SYSTEM = 7  # the first version in which system messages stand between tokens of their own
EFFORTS = ("none", "high")  # of version 15; the first is the default

# A version -> the control tokens that it cannot do without
NEEDED = {
    2: ("[INST]", "[/INST]"),
    3: ("[INST]", "[/INST]"),
    7: ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"),
    11: ("[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    13: ("[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[ARGS]"),
    15: ("[SYSTEM_PROMPT]", "[TOOL_CALLS]", "[ARGS]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]"),
}


def suits(version: int, vocab: Vocab) -> bool:
    """Return whether a vocabulary has the tokens of a version."""
    return all(text in vocab.specials for text in NEEDED[version])


def mistral(
    vocab: Vocab,
    version: int,
    efforts: Sequence[str] = EFFORTS,
    default_system: DefaultSystem | None = None,
    *,
    manner: Manner = "reference",
) -> Layout:
    """Return the layout of a version.

    Versions 2 and 3 (Mixtral 8x22B, Mistral 7B v0.3, Nemo): the system text opens the last user turn, which the tools precede; version 2
    forgets the calls of earlier turns. From 7 on (Large 2411, Small 3) system messages stand where they are; from 11 on (Small 3.2) a
    call is written between control tokens; from 13 on (Magistral, Devstral) the tools precede the first user turn, ids are left out and
    reasoning has its place; 15 (Small 4) has settings.

    `default_system` (from 7 on) stands where a conversation does not begin with a system message. Other manners than the reference
    encoder's are those of chat templates: they keep blanks at the end of an answer; neighbors are "joined" with empty ones, or "single".
    """
    token = vocab.specials
    call, result = _CALLS[version](token), _RESULTS[version](token)

    def between(name: str, *parts: Part) -> tuple[Part, ...]:
        return (token[f"[{name}]"], *parts, token[f"[/{name}]"])

    def layout(messages: Sequence[Message], options: PromptOptions = NO_OPTIONS) -> Iterator[Part]:
        yield vocab.bos
        if default_system and messages[0].role != "system":
            yield from between("SYSTEM_PROMPT", *default_system())
        turns = _arranged(messages, version, manner)
        users = [i for i, turn in enumerate(turns) if turn.role == "user"]
        if options.tools and not users:
            raise BadRequest("tools need a user message; messages has none", param="messages")
        for i, turn in enumerate(turns):
            if version == 2 and i < users[-1] and (turn.calls or turn.role == "tool"):
                continue
            if users and i == users[0 if version >= 13 else -1]:
                for name, content in _setup(options, version, efforts):
                    yield from between(name, content)
            if turn.role == "system":
                yield from between("SYSTEM_PROMPT", turn.content)
            elif turn.role == "user":
                yield from between("INST", turn.content)
            elif turn.role == "tool":
                yield from between("TOOL_RESULTS", *result(turn))
            else:
                yield from answer(turn)
                if turn is not turns[-1]:
                    yield vocab.eos

    def answer(turn: Message) -> Iterator[Part]:
        if turn.tokens:
            yield from turn.tokens
        elif turn.reasoning and "[THINK]" in token and version >= 13:
            yield from (*between("THINK", turn.reasoning), turn.content)
        else:
            yield turn.content.rstrip(" ") if manner == "reference" else turn.content
        if turn.calls:
            yield from call(turn.calls)

    return layout


def _setup(options: PromptOptions, version: int, efforts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return what stands before a user turn: the names of the tokens around it, and its text."""
    if options.tools:
        yield "AVAILABLE_TOOLS", dumped([tool.definition for tool in options.tools])
    if version >= 15:
        yield "MODEL_SETTINGS", dumped({"reasoning_effort": options.reasoning_effort or efforts[0]})


def _arranged(messages: Sequence[Message], version: int, manner: Manner) -> list[Message]:
    """Return the turns in the order in which a version writes them."""
    if version < WITH_SYSTEM:
        return with_system(messages, first=False)
    turns = list(messages) if manner == "single" else joined(messages, keep_empty=manner == "joined")
    return in_order_of_calls(turns) if version >= 11 else turns


Tokens = dict[str, int]
Calls = Callable[[Sequence[ToolCall]], list[Part]]
Result = Callable[[Message], list[Part]]


def _as_list(token: Tokens, *, with_id: bool) -> Calls:
    """Write the calls of a turn as one JSON list."""

    def one(call: ToolCall) -> dict[str, object]:
        written = {"name": call.name, "arguments": arguments_of(call.arguments)}
        return {**written, "id": nine(call.id)} if with_id else written

    return lambda calls: [token["[TOOL_CALLS]"], dumped([one(call) for call in calls])]


def _between_tokens(token: Tokens, *, with_id: bool) -> Calls:
    """Write each call as its name, its id and its arguments, control tokens before each."""

    def one(call: ToolCall) -> list[Part]:
        call_id: list[Part] = [token["[CALL_ID]"], nine(call.id)] if with_id else []
        arguments = dumped(arguments_of(call.arguments))
        return [token["[TOOL_CALLS]"], call.name, *call_id, token["[ARGS]"], arguments]

    return lambda calls: [part for call in calls for part in one(call)]


_CALLS: dict[int, Callable[[Tokens], Calls]] = {
    2: lambda token: _as_list(token, with_id=False),
    3: lambda token: _as_list(token, with_id=True),
    7: lambda token: _as_list(token, with_id=True),
    11: lambda token: _between_tokens(token, with_id=True),
    13: lambda token: _between_tokens(token, with_id=False),
    15: lambda token: _between_tokens(token, with_id=False),
}
_RESULTS: dict[int, Callable[[Tokens], Result]] = {
    2: lambda _: lambda turn: [dumped([{"name": turn.name or None, "content": value_of(turn.content or "{}")}])],
    3: lambda _: lambda turn: [dumped({"content": value_of(turn.content or "{}"), "call_id": nine(turn.call_id)})],
    7: lambda token: lambda turn: [nine(turn.call_id), token["[TOOL_CONTENT]"], turn.content],
    11: lambda token: lambda turn: [nine(turn.call_id), token["[TOOL_CONTENT]"], turn.content],
    13: lambda _: lambda turn: [turn.content],
    15: lambda _: lambda turn: [turn.content],
}  # fmt: skip
