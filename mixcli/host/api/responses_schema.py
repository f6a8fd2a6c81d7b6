"""OpenAI's Responses request, stateless, and its translation into a chat completion request."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from mixcli.errors import BadRequest, ContextOverflow
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.events import JsonObject
from mixcli.host.api.field_rules import FieldRule, harmless, only
from mixcli.host.api.json_body import validated
from mixcli.host.api.message_schema import MAX_MESSAGES
from mixcli.host.api.tool_schema import flat_tools
from mixcli.host.api.wire_model import Number, Whole, WireModel, as_sent, not_empty, relocated
from mixcli.host.call import ChatQuestion

MAX_PARTS = 1 << 12
MAX_TOOLS = 512
MAX_INCLUDED = 64
MAX_METADATA = 16  # as OpenAI has it
LOGPROBS = "message.output_text.logprobs"  # what else can be included is always there, or only OpenAI has it
STATELESS = "nothing is stored; send the whole conversation in input"

RESPONSES_RULES: Mapping[str, FieldRule] = {
    "store": only("OpenAI", False, why=STATELESS),
    "previous_response_id": only("OpenAI", why=STATELESS),
    "conversation": only("OpenAI", why=STATELESS),
    "prompt": only("OpenAI", why="write the prompt into instructions and input"),
    "background": only("OpenAI", False, why="ask with stream"),
    "context_management": only("OpenAI", [], why="use truncation"),
    "moderation": only("OpenAI", why="remove it"),
    "max_tool_calls": harmless("OpenAI", "limits built-in tools, which are not supported"),
    "stream_options": harmless("OpenAI", "controls padding of events, which is not done here"),
    "user": harmless("OpenAI", "identifies a user to OpenAI"),
    "safety_identifier": harmless("OpenAI", "identifies a user to OpenAI"),
    "prompt_cache_key": harmless("OpenAI", "prompts are always cached"),
    "prompt_cache_options": harmless("OpenAI", "prompts are always cached"),
    "prompt_cache_retention": harmless("OpenAI", "prompts are always cached"),
}
ITEM_RULES: Mapping[str, FieldRule] = {
    "id": harmless("OpenAI", "identifies an item to OpenAI"),
    "status": harmless("OpenAI", "marks an item that is complete"),
    "phase": harmless("OpenAI", "marks a part of an answer"),
    "caller": harmless("OpenAI", "marks who called a tool"),
    "namespace": harmless("OpenAI", "marks where a tool came from"),
}
PART_RULES: Mapping[str, FieldRule] = {
    "annotations": harmless("OpenAI", "marks where a text came from"),
    "logprobs": harmless("OpenAI", "belongs to an earlier answer"),
    "parsed": harmless("OpenAI", "the client library adds it to a response"),
    "prompt_cache_breakpoint": harmless("OpenAI", "prompts are always cached"),
}
# fields of a chat request and where they come from
RENAMED = {
    "max_tokens": "max_output_tokens",
    "response_format.json_schema.schema": "text.format.schema",
    "reasoning_effort": "reasoning.effort",
}


def _one_of(what: str, *known: str) -> BeforeValidator:
    """Refuse an object with another `type` by its name."""

    def check(value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in known:
            raise PydanticCustomError(
                "value_error",
                "{what} of the type {kind} are not supported; use {known}",
                {"what": what, "kind": kind[:80], "known": ", ".join(known)},
            )
        return value

    return BeforeValidator(check)


class TextOfItem(WireModel):
    """A text that is part of an item."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]
    text: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return PART_RULES


Part = Annotated[
    TextOfItem, _one_of("parts", "input_text", "output_text", "text", "summary_text", "reasoning_text")
]
Parts = Annotated[list[Part], Field(max_length=MAX_PARTS, fail_fast=True)]


class Item(WireModel):
    """One item of the input."""

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return ITEM_RULES


class MessageItem(Item):
    """A message of one role."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Parts


class CallItem(Item):
    """A call of a tool, by the model."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {
            **ITEM_RULES,
            "parsed_arguments": harmless("OpenAI", "the client library adds it to a response"),
        }


class CallOutputItem(Item):
    """What a tool returned."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | Parts


class ReasoningItem(Item):
    """What the model thought before it answered."""

    type: Literal["reasoning"]
    summary: Parts = Field(default_factory=list)
    content: Parts = Field(default_factory=list)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {**ITEM_RULES, "encrypted_content": only("OpenAI", "", why="send content")}


def _with_type(value: object) -> object:
    """Add the type that OpenAI lets messages leave out."""
    if isinstance(value, dict) and "role" in value:
        return {"type": "message", **value}
    return value


InputItem = Annotated[
    Annotated[MessageItem | CallItem | CallOutputItem | ReasoningItem, Field(discriminator="type")],
    _one_of("items", "message", "function_call", "function_call_output", "reasoning"),
    BeforeValidator(_with_type),
]


class FunctionTool(WireModel):
    """A tool that the client runs."""

    type: Literal["function"]
    name: str
    description: str = ""
    parameters: dict[str, object] = Field(default_factory=dict)
    strict: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {
            "defer_loading": only("OpenAI", False, why="send tools that the model may use"),
            "allowed_callers": only("OpenAI", ["direct"], why="only the model calls tools"),
            "output_schema": harmless("OpenAI", "describes results to the client"),
        }

    def to_chat(self) -> JsonObject:
        """Return the tool in the form of chat completions."""
        function: JsonObject = {"name": self.name, "parameters": self.parameters, "strict": self.strict}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


class FunctionChoice(WireModel):
    """The tool that has to be called."""

    type: Literal["function"]
    name: str


class TextFormat(WireModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    description: str = ""
    schema_: dict[str, object] | None = Field(None, alias="schema")
    strict: bool = False

    def to_chat(self) -> JsonObject:
        """Return the form as chat completions have it."""
        if self.type != "json_schema":
            return {"type": self.type}
        return {"type": self.type, "json_schema": {"name": self.name, "schema": self.schema_}}


class TextOptions(WireModel):
    """What the text of the answer is like."""

    format: TextFormat | None = None

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {"verbosity": only("OpenAI", "medium", why="ask for a length in instructions")}


class ReasoningOptions(WireModel):
    """How much the model should think."""

    effort: str | None = None

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        shown = harmless("OpenAI", "reasoning is always shown whole")
        return {"summary": shown, "generate_summary": shown}


class ResponsesRequest(WireModel):
    """POST /v1/responses."""

    input: Annotated[
        str | Annotated[list[InputItem], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)],
        not_empty("a text or at least one item"),
    ]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Whole | None = Field(None, ge=1)
    stream: bool = False
    temperature: Number | None = None
    top_p: Number | None = None
    top_logprobs: Whole | None = None
    text: TextOptions = TextOptions()
    reasoning: ReasoningOptions = ReasoningOptions()
    tools: list[Annotated[FunctionTool, _one_of("tools", "function")]] = Field(
        [], max_length=MAX_TOOLS, fail_fast=True
    )
    tool_choice: (
        Literal["auto", "none", "required"] | Annotated[FunctionChoice, _one_of("choices", "function")]
    ) = "auto"
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: dict[str, str] = Field({}, max_length=MAX_METADATA)
    service_tier: str | None = None
    include: list[str] = Field([], max_length=MAX_INCLUDED, fail_fast=True)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return RESPONSES_RULES

    def question(self) -> ChatQuestion:
        """Return the request as the engine's loop takes it; BadRequest names a field that is wrong."""
        with self.named_as_sent():
            return validated(ChatRequest, self._body()).question()

    @contextlib.contextmanager
    def named_as_sent(self) -> Iterator[None]:
        """Name the field in a BadRequest of the chat request as the client named it."""
        try:
            yield
        except ContextOverflow as error:
            error.param = "input"
            raise
        except BadRequest as error:
            found = relocated(as_sent(error, RENAMED), {**self._places(), "messages": "input"})
            raise flat_tools(found) from error.__cause__

    def _turns(self) -> "list[_Turn]":
        """Return the conversation as chat messages, each with the items that it was made of."""
        items = [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        said = [_Turn({"role": "system", "content": self.instructions})] if self.instructions else []
        return [*said, *_turns(items)]

    def _places(self) -> dict[str, str]:
        """Return where the messages of the chat request, and the calls and results in them, stand in this one."""
        places: dict[str, str] = {}
        for at, turn in enumerate(self._turns()):
            ours = f"messages.{at}"
            if not turn.items:
                places[ours] = "instructions"
            elif isinstance(self.input, str):
                places[ours] = "input"
            else:
                places[ours] = f"input.{turn.items[-1]}"
                places[f"{ours}.tool_call_id"] = places[f"{ours}.tool_calls"] = f"{places[ours]}.call_id"
                calls = [k for k in turn.items if isinstance(self.input[k], CallItem)]
                places |= {f"{ours}.tool_calls.{c}.function": f"input.{k}" for c, k in enumerate(calls)}
                places |= {f"{ours}.tool_calls.{c}": f"input.{k}" for c, k in enumerate(calls)}
        return places

    def _body(self) -> JsonObject:
        messages = [turn.message for turn in self._turns()]
        body: JsonObject = {"model": self.model, "messages": messages, "stream": self.stream}
        said = {
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "reasoning_effort": self.reasoning.effort,
            "response_format": self.text.format.to_chat() if self.text.format else None,
        }
        body |= {name: value for name, value in said.items() if value is not None}
        if self.top_logprobs is not None or LOGPROBS in self.include:
            body |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        body |= {"tools": [tool.to_chat() for tool in self.tools], "tool_choice": self._choice()}
        body["parallel_tool_calls"] = self.parallel_tool_calls
        if self.truncation == "auto":
            body["on_overflow"] = "drop-oldest"
        return body

    def _choice(self) -> object:
        if isinstance(self.tool_choice, str):
            return self.tool_choice
        return {"type": "function", "function": {"name": self.tool_choice.name}}


@dataclass
class _Turn:
    """A chat message, and the places of the items that it was made of."""

    message: JsonObject
    items: list[int] = field(default_factory=list)


def _turns(items: Iterable[Item]) -> Iterator[_Turn]:
    """Yield chat messages: reasoning, text and calls of the model that follow each other are one turn."""
    turn: _Turn | None = None
    for at, item in enumerate(items):
        if isinstance(item, ReasoningItem | CallItem) or (
            isinstance(item, MessageItem) and item.role == "assistant"
        ):
            if turn is not None and _begins_a_turn(item, turn.message):
                yield turn
                turn = None
            turn = turn or _Turn({"role": "assistant", "content": ""})
            turn.message = _extended(turn.message, item)
            turn.items.append(at)
            continue
        if turn is not None:
            yield turn
            turn = None
        if isinstance(item, MessageItem):
            yield _Turn({"role": item.role, "content": _content(item.content)}, [at])
        elif isinstance(item, CallOutputItem):
            result: JsonObject = {
                "role": "tool",
                "tool_call_id": item.call_id,
                "content": _content(item.output),
            }
            yield _Turn(result, [at])
    if turn is not None:
        yield turn


def _begins_a_turn(item: Item, turn: JsonObject) -> bool:
    """Return whether an item of the model belongs to its next turn: a turn is reasoning, then text, then calls."""
    if isinstance(item, CallItem):
        return False
    return (
        "tool_calls" in turn
        or bool(turn["content"])
        or (isinstance(item, ReasoningItem) and "reasoning_content" in turn)
    )


def _extended(turn: JsonObject, item: Item) -> JsonObject:
    if isinstance(item, ReasoningItem):
        text = "".join(part.text for part in item.content or item.summary)
        return {**turn, "reasoning_content": text} if text else turn
    if isinstance(item, CallItem):
        function = {"name": item.name, "arguments": item.arguments}
        calls = turn.get("tool_calls", [])
        assert isinstance(calls, list)
        return {
            **turn,
            "tool_calls": [*calls, {"id": item.call_id, "type": "function", "function": function}],
        }
    assert isinstance(item, MessageItem)
    return {**turn, "content": _content(item.content)}


def _content(content: str | Sequence[TextOfItem]) -> str | list[JsonObject]:
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.text} for part in content]
