"""Tools as chat requests have them: definitions, the choice among them, and the calls of earlier turns."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from mixcli.errors import BadRequest
from mixcli.host.api.field_rules import FieldRule, harmless, only
from mixcli.host.api.wire_model import Whole, WireModel
from mixcli.prompts.messages import NO_TOOLS, Tool, ToolCall, ToolUse
from mixcli.request.schema_limits import fault_of_tool

MAX_TOOLS = 512
MAX_CALLS = 512  # of one turn

_IN_FUNCTION = re.compile(r"(tools\.\d+|tool_choice)\.function\.(\w+)")

Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]


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


class NamedChoice(WireModel):
    """The choice of one tool."""

    type: Literal["function"] = "function"
    function: FunctionName

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return {
            "allowed_tools": only("OpenAI", why="send only the tools that may be called"),
            "custom": only("OpenAI", why="only function tools are supported"),
        }


class CalledFunction(WireModel):
    """A function that was called, with its arguments as JSON text; an object is taken as well, as Ollama writes it."""

    name: Name
    arguments: str | dict[str, object] = "{}"


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
        return {"custom": only("OpenAI", why="only function tools are supported")}


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
        if choice.function.name not in names:
            raise BadRequest(
                f"tool_choice names {choice.function.name!r:.80}, which is not one of the tools",
                param="tool_choice.function.name",
            )
        return ToolUse(found, "required", choice.function.name, parallel=False)
    if choice == "any":  # Mistral's word
        choice = "required"
    return ToolUse(found, choice or "auto", None, parallel)


def flat_tools(error: BadRequest, schema: str = "parameters") -> BadRequest:
    """Return an error as APIs name it whose tools have no `function` around their fields; `schema` is their name for the parameters."""
    match = _IN_FUNCTION.match(error.param)
    if match is None:
        return error
    param = error.param.replace(match[0], f"{match[1]}.{schema if match[2] == 'parameters' else match[2]}", 1)
    return BadRequest(str(error).replace(error.param, param, 1), param=param, code=error.code)


__all__ = ["MAX_CALLS", "MAX_TOOLS", "CallOfTurn", "ToolChoice", "ToolDefinition", "flat_tools", "tool_use"]
