"""Anthropic's Messages request, and its translation into a chat completion request."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mixcli.errors import BadRequest
from mixcli.host.api.anthropic_context import ContextManagement
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.events import JsonObject
from mixcli.host.api.field_rules import FieldRule, alias, harmless, only
from mixcli.host.api.json_body import validated
from mixcli.host.api.message_schema import MAX_MESSAGES
from mixcli.host.api.tool_schema import flat_tools
from mixcli.host.api.wire_model import Number, Whole, WireModel, as_sent, not_empty, relocated
from mixcli.host.call import ChatQuestion
from mixcli.request.sampling_table import MAX_STOPS

MAX_BLOCKS = 1 << 12
MAX_TOOLS = 1 << 10
BLOCKS = ("text", "thinking", "tool_use", "tool_result")
BLOCKS_OF = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "thinking", "tool_use"),
    "system": ("text",),
}
# a kind of thinking -> whether the model must think; None where it decides itself
THINKS = {"enabled": True, "disabled": False, "adaptive": None, "between_tools": None}
DEFAULT_EFFORT = "high"  # the same as none, as Anthropic has it
EFFORTS = {"xhigh": "high", "max": "high"}  # what Anthropic's scale has above OpenAI's

# fields of a chat request and where they come from
RENAMED = {
    "stop": "stop_sequences",
    "response_format.json_schema.schema": "output_config.format.schema",
    "reasoning_effort": "output_config.effort",
    "enable_thinking": "thinking",
}
CACHED = {"cache_control": harmless("Anthropic", "prompts are always cached")}
MESSAGES_RULES: Mapping[str, FieldRule] = {
    **CACHED,
    "metadata": harmless("Anthropic", "identifies a user to Anthropic"),
    "service_tier": harmless("Anthropic", "all requests have the same priority"),
    "speed": harmless("Anthropic", "all requests run at the same speed"),
    "diagnostics": harmless("Anthropic", "reports on Anthropic's cache"),
    "inference_geo": harmless("Anthropic", "nothing leaves this machine"),
    "user_profile_id": harmless("Anthropic", "identifies a user to Anthropic"),
    "workspace_id": harmless("Anthropic", "identifies a workspace to Anthropic"),
    "container": only("Anthropic", why="no code is executed here"),
    "mcp_servers": only("Anthropic", [], why="send the server's tools in tools"),
    "output_format": alias("Anthropic", "output_config.format"),
    "betas": harmless("Anthropic", "selects versions of Anthropic's API"),
}
BLOCK_RULES: Mapping[str, FieldRule] = {
    **CACHED,
    "citations": harmless("Anthropic", "marks where an earlier text came from"),
    "caller": harmless("Anthropic", "marks who called a tool"),
    "toolset_name": harmless("Anthropic", "marks where a tool came from"),
    "parsed_output": harmless("Anthropic", "the client library adds it to a response"),
}
TOOL_RULES: Mapping[str, FieldRule] = {
    **CACHED,
    "eager_input_streaming": harmless("Anthropic", "arguments are always streamed"),
    "defer_loading": only("Anthropic", False, why="send only the tools that the model may use"),
    "allowed_callers": only("Anthropic", ["direct"], why="only the model calls tools"),
    "input_examples": only("Anthropic", [], why="write examples into the description"),
}
THINKING_RULES: Mapping[str, FieldRule] = {
    "display": harmless("Anthropic", "thinking is always shown in full"),
}


def _known_block(value: object) -> object:
    """Refuse a block of another type by its name."""
    kind = value.get("type") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in BLOCKS:
        known = ", ".join(BLOCKS)
        raise PydanticCustomError(
            "value_error",
            "{kind} blocks are not supported; use {known}",
            {"kind": kind[:80], "known": known},
        )
    return value


def _known_tool(kind: object) -> object:
    """Refuse a tool that Anthropic's servers run, or whose schema only its models know."""
    if isinstance(kind, str) and kind != "custom":
        raise PydanticCustomError(
            "value_error",
            "the built-in tool {kind} is not supported; describe a tool by its input_schema",
            {"kind": kind[:80]},
        )
    return kind


class ContentBlock(WireModel):
    """One block of a turn."""

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return BLOCK_RULES


class TextBlock(ContentBlock):
    """Text of a user, or of the model."""

    type: Literal["text"]
    text: str


class ThinkingBlock(ContentBlock):
    """What the model thought before it answered; the signature is not used."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(ContentBlock):
    """A call of a tool, by the model."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, object]


Texts = Annotated[
    list[Annotated[TextBlock, BeforeValidator(_known_block)]], Field(max_length=MAX_BLOCKS, fail_fast=True)
]


class ToolResultBlock(ContentBlock):
    """What a tool returned."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | Texts = ""
    is_error: bool = False

    def to_chat(self) -> JsonObject:
        """Return the result as a message of its own; OpenAI has no mark for an error but the text."""
        content = self.content if isinstance(self.content, str) else _parts(self.content)
        if self.is_error:
            content = f"Error: {_joined(self.content)}"
        return {"role": "tool", "tool_call_id": self.tool_use_id, "content": content}


Block = Annotated[
    Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")],
    BeforeValidator(_known_block),
]


class MessageTurn(WireModel):
    """One turn: text, or blocks."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(max_length=MAX_BLOCKS, fail_fast=True)]

    @model_validator(mode="after")
    def of_its_role(self) -> Self:
        """Refuse a block that another role has."""
        if isinstance(self.content, list):
            for i, block in enumerate(self.content):
                if block.type not in BLOCKS_OF[self.role]:
                    raise ValueError(
                        f"content.{i} is a {block.type} block; the role {self.role} has {' and '.join(BLOCKS_OF[self.role])} blocks"
                    )
        return self

    @property
    def thinks(self) -> bool:
        """Return whether the turn has thinking."""
        blocks = [] if isinstance(self.content, str) else self.content
        return any(isinstance(block, ThinkingBlock) for block in blocks)

    def without_thinking(self) -> Self:
        """Return the turn without its thinking."""
        kept = [block for block in self.content if not isinstance(block, ThinkingBlock)]
        return self.model_copy(update={"content": kept})

    def to_chat(self) -> Iterator[JsonObject]:
        """Yield the turn as chat messages: results of tools are messages of their own, before the text."""
        if isinstance(self.content, str):
            yield {"role": self.role, "content": self.content}
            return
        texts = [block for block in self.content if isinstance(block, TextBlock)]
        calls = [block for block in self.content if isinstance(block, ToolUseBlock)]
        thoughts = [block.thinking for block in self.content if isinstance(block, ThinkingBlock)]
        results = [block for block in self.content if isinstance(block, ToolResultBlock)]
        yield from (result.to_chat() for result in results)
        if results and not texts:
            return
        message: JsonObject = {"role": self.role, "content": _parts(texts)}
        if calls:
            message["tool_calls"] = [_call(block) for block in calls]
        if thoughts:
            message["reasoning_content"] = "".join(thoughts)
        yield message


class MessageTool(WireModel):
    """A tool that the client runs."""

    name: str
    type: Annotated[Literal["custom"], BeforeValidator(_known_tool)] = "custom"
    description: str = ""
    input_schema: dict[str, object]
    strict: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return TOOL_RULES

    def to_chat(self) -> JsonObject:
        """Return the tool in OpenAI's form."""
        function: JsonObject = {"name": self.name, "parameters": self.input_schema}
        if self.strict:
            function["strict"] = True
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function}


class MessageToolChoice(WireModel):
    """Whether a tool has to be called, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def named(self) -> Self:
        """Refuse a tool without a name, and a name that would choose nothing."""
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name is required with the type tool, and invalid with others")
        return self

    def to_chat(self) -> JsonObject:
        """Return the fields of a chat request."""
        choice: object = {"any": "required"}.get(self.type, self.type)
        if self.type == "tool":
            choice = {"type": "function", "function": {"name": self.name}}
        one = {"parallel_tool_calls": False} if self.disable_parallel_tool_use else {}
        return {"tool_choice": choice, **one}


class Thinking(WireModel):
    """Whether the model thinks before it answers, and at most how many tokens: models that never or always do refuse the opposite."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[Whole, Field(ge=1)] | None = None

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return THINKING_RULES


class JsonFormat(WireModel):
    """The schema that an answer has to match."""

    type: Literal["json_schema"]
    schema_: dict[str, object] = Field(alias="schema")


class OutputConfig(WireModel):
    """The form of the answer, and how much the model should think about it."""

    format: JsonFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class CountRequest(WireModel):
    """POST /v1/messages/count_tokens: a request without what limits its answer."""

    model: str | None = None
    messages: Annotated[list[MessageTurn], not_empty("at least one message")] = Field(
        min_length=1, max_length=MAX_MESSAGES, fail_fast=True
    )
    system: str | Texts = ""
    tools: list[MessageTool] = Field([], max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: MessageToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    context_management: ContextManagement = ContextManagement()

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return MESSAGES_RULES

    def question(self) -> ChatQuestion:
        """Return the request as the engine's loop takes it; BadRequest names a field that is wrong."""
        with self.named_as_sent():
            question = validated(ChatRequest, self._body()).question()
        question = replace(question, is_default_effort=self.output_config.effort == DEFAULT_EFFORT)
        if self.thinking is None:
            return question
        thinks, budget = THINKS[self.thinking.type], self.thinking.budget_tokens
        return replace(question, thinking=thinks, thinking_budget=budget)

    @contextlib.contextmanager
    def named_as_sent(self) -> Iterator[None]:
        """Name the field in a BadRequest of the chat request as the client named it."""
        try:
            yield
        except BadRequest as error:
            found = relocated(as_sent(error, RENAMED), self._places())
            raise flat_tools(found, "input_schema") from error.__cause__

    def _places(self) -> dict[str, str]:
        """Return where the messages of the chat request, and the calls and results in them, stand in this one."""
        places = {"messages.0": "system"} if self.system else {}
        at = len(places)
        for i, turn in enumerate(self.messages):
            blocks = turn.content if isinstance(turn.content, list) else []
            results = [k for k, block in enumerate(blocks) if isinstance(block, ToolResultBlock)]
            calls = [k for k, block in enumerate(blocks) if isinstance(block, ToolUseBlock)]
            for n, _ in enumerate(turn.to_chat()):
                ours, theirs = f"messages.{at}", f"messages.{i}"
                if n < len(results):
                    theirs += f".content.{results[n]}"
                    places[f"{ours}.tool_call_id"] = f"{theirs}.tool_use_id"
                else:
                    places[f"{ours}.tool_calls"] = f"{theirs}.content"
                    places |= {f"{ours}.tool_calls.{c}": f"{theirs}.content.{k}" for c, k in enumerate(calls)}
                    places |= {
                        f"{ours}.tool_calls.{c}.function": f"{theirs}.content.{k}"
                        for c, k in enumerate(calls)
                    }
                places[ours] = theirs
                at += 1
        return places

    def _kept(self) -> Sequence[MessageTurn]:
        """Return the turns, the older ones without their thinking where that is to be cleared."""
        n_kept = self.context_management.n_thinking_turns
        if n_kept is None:
            return self.messages
        older = {i for i, turn in enumerate(self.messages) if turn.thinks}
        older -= set(sorted(older)[-n_kept:])
        return [turn.without_thinking() if i in older else turn for i, turn in enumerate(self.messages)]

    def _body(self) -> JsonObject:
        system = self.system if isinstance(self.system, str) else _parts(self.system)
        messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
        messages += [one for turn in self._kept() for one in turn.to_chat()]
        body: JsonObject = {"model": self.model, "messages": messages}
        if self.tools:
            body["tools"] = [tool.to_chat() for tool in self.tools]
        if self.tool_choice is not None:
            body |= self.tool_choice.to_chat()
        if self.output_config.format is not None:
            schema = {"name": "answer", "schema": self.output_config.format.schema_}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        effort = self.output_config.effort
        is_off = self.thinking is not None and self.thinking.type == "disabled"
        return body | ({"reasoning_effort": EFFORTS.get(effort, effort)} if effort and not is_off else {})


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[Whole, Field(ge=1)]
    stream: bool = False
    stop_sequences: list[str] = Field([], max_length=MAX_STOPS, fail_fast=True)
    temperature: Number | None = None
    top_k: Whole | None = None
    top_p: Number | None = None

    def _body(self) -> JsonObject:
        body = super()._body() | {"max_tokens": self.max_tokens, "stream": self.stream}
        if self.stop_sequences:
            body["stop"] = self.stop_sequences
        for name in ("temperature", "top_k", "top_p"):
            if (value := getattr(self, name)) is not None:
                body[name] = value
        return body


def _parts(blocks: Sequence[TextBlock]) -> list[JsonObject]:
    return [{"type": "text", "text": block.text} for block in blocks]


def _joined(content: str | Sequence[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n\n".join(block.text for block in content)


def _call(block: ToolUseBlock) -> JsonObject:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}
