"""Tools as chat requests have them: definitions, the choice among them, and the calls of earlier turns."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mixcli.errors import BadRequest
from mixcli.host.api.chat_fields import CALL_RULES
from mixcli.host.api.field_rules import FieldRule, harmless, only
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.prompts.messages import NO_TOOLS, Tool, ToolCall, ToolUse
from mixcli.request.schema_limits import fault_of_tool

MAX_TOOLS = 512
MAX_CALLS = 512  # of one turn

_IN_FUNCTION = re.compile(r"(tools\.\d+|tool_choice(?:\.allowed_tools\.tools\.\d+)?)\.function\.(\w+)")

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")]


def _of_object(schema: dict[str, object]) -> dict[str, object]:
    """Refuse a schema of anything else: the arguments of a function have names."""
    if (kind := schema.get("type", "object")) != "object":
        raise PydanticCustomError(
            "value_error",
            "its type must be object, not {kind}: arguments have names",
            {"kind": json.dumps(kind)[:40]},
        )
    return schema


class FunctionDefinition(WireModel):
    """A function that the model may call, and the JSON schema of its arguments."""

    name: Name
    description: str = ""
    parameters: Annotated[dict[str, object], AfterValidator(_of_object)] = Field(default_factory=dict)
    strict: bool = False


class ToolDefinition(WireModel):
    """A tool; all of them are functions."""

    type: Literal["function"] = "function"
    function: FunctionDefinition

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {
            "cache_control": harmless("Anthropic", "prompts are always cached"),
            "custom": only("OpenAI", why="only function tools are supported"),
        }

    def tool(self) -> Tool:
        """Return it as the engine takes it."""
        one = self.function
        return Tool(one.name, one.description, json.dumps(one.parameters, ensure_ascii=False), one.strict)


class FunctionName(WireModel):
    """The function that must be called."""

    name: str


class AllowedFunction(WireModel):
    """One of the tools that may be called."""

    type: Literal["function"] = "function"
    function: FunctionName


class AllowedTools(WireModel):
    """The tools that may be called, of all that the model is shown, and whether one of them must be."""

    mode: Literal["auto", "required"]
    tools: list[AllowedFunction] = Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)


class NamedChoice(WireModel):
    """The choice of one tool, or of some that may be called."""

    type: Literal["function", "allowed_tools"] = "function"
    function: FunctionName | None = None
    allowed_tools: AllowedTools | None = None

    @model_validator(mode="after")
    def one(self) -> Self:
        """Refuse a choice without the field that its type has, or with another one."""
        if (self.type == "function", self.type == "allowed_tools") != (
            self.function is not None,
            self.allowed_tools is not None,
        ):
            raise ValueError(f"of the type {self.type} has the field {self.type}, and no other")
        return self

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {"custom": only("OpenAI", why="only function tools are supported")}

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield the names of the tools, each with its place in the request."""
        if self.function is not None:
            yield self.function.name, "tool_choice.function.name"
        for i, one in enumerate(self.allowed_tools.tools if self.allowed_tools else ()):
            yield one.function.name, f"tool_choice.allowed_tools.tools.{i}.function.name"

    def use(self, tools: tuple[Tool, ...], *, parallel: bool) -> ToolUse:
        """Return how tools may be used."""
        only_these = tuple(name for name, _ in self.named())
        if self.allowed_tools is None:
            return ToolUse(tools, "required", only_these, parallel=False)
        return ToolUse(tools, self.allowed_tools.mode, only_these, parallel)


class CalledFunction(WireModel):
    """A function that was called, with its arguments as JSON text; an object is taken as well, as Ollama writes it."""

    name: Name
    arguments: str | dict[str, object] = "{}"

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return CALL_RULES


class CallOfTurn(WireModel):
    """One call of an earlier turn."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Whole = 0

    def call(self) -> ToolCall:
        """Return it as the engine takes it."""
        told = self.function.arguments
        text = told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)
        return ToolCall(self.id, self.function.name, text)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {**CALL_RULES, "custom": only("OpenAI", why="only function tools are supported")}


ToolChoice = Literal["auto", "none", "required", "any"] | NamedChoice


def tool_use(tools: Sequence[ToolDefinition], choice: ToolChoice | None, *, parallel: bool) -> ToolUse:
    """Return the tools of a request and how they may be used; BadRequest for a choice among none, or of an unknown one."""
    names = [one.function.name for one in tools]
    if not tools:
        if choice in (None, "auto", "none"):
            return NO_TOOLS
        raise BadRequest("tool_choice is only allowed with tools", param="tool_choice")
    if twice := next((i for i, name in enumerate(names) if name in names[:i]), None):
        raise BadRequest(
            f"two tools have the name {names[twice]!r}; rename one", param=f"tools.{twice}.function.name"
        )
    for i, one in enumerate(tools):
        if fault := fault_of_tool(one.function.parameters):
            raise BadRequest(f"tool {names[i]}: {fault}", param=f"tools.{i}.function.parameters")
    found = tuple(one.tool() for one in tools)
    if isinstance(choice, NamedChoice):
        for name, param in choice.named():
            if name not in names:
                raise BadRequest(
                    f"tool_choice names {name!r:.80}, which is not one of the tools", param=param
                )
        return choice.use(found, parallel=parallel)
    if choice == "any":  # Mistral's word
        choice = "required"
    return ToolUse(found, choice or "auto", (), parallel)


def flat_tools(error: BadRequest, schema: str = "parameters") -> BadRequest:
    """Return an error as APIs name it whose tools have no `function` around their fields; `schema` is their name for the parameters."""
    match = _IN_FUNCTION.match(error.param)
    if match is None:
        return error
    place, name = match[1].replace(".allowed_tools", ""), schema if match[2] == "parameters" else match[2]
    param = error.param.replace(match[0], f"{place}.{name}", 1)
    return BadRequest(str(error).replace(error.param, param, 1), param=param, code=error.code)


__all__ = ["MAX_CALLS", "MAX_TOOLS", "CallOfTurn", "ToolChoice", "ToolDefinition", "flat_tools", "tool_use"]
