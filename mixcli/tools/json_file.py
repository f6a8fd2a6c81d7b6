"""Read a JSON file of tools: definitions as OpenAI, Anthropic or MCP write them, or the MCP servers of a client's settings (`mcpServers`)."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.system import strict_json
from mixcli.system.stdin import read_text
from mixcli.system.text import did_you_mean, first_repeated, not_a_file, shown
from mixcli.tools.toolbox import FunctionSpec, ToolFailed

_SCHEMAS = ("parameters", "input_schema", "inputSchema")  # as OpenAI, Anthropic and MCP name it
_FIELDS = ("name", "description", *_SCHEMAS, "strict")
# of MCP: how a tool looks, and what comes back; of Anthropic: prompts are cached without it
_HARMLESS = ("title", "annotations", "outputSchema", "icons", "execution", "_meta", "cache_control")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(frozen=True)
class ServerCommand:
    """How an MCP server is started; `variables` are those that the user gives it."""

    name: str
    command: str
    arguments: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DefinedTools:
    """Tools that are only defined (a ToolSource): a model can ask for them, and the program that reads its calls runs them."""

    name: str
    specs: Sequence[FunctionSpec]
    notes: Sequence[str] = ()

    def call(self, name: str, _arguments: Mapping[str, object]) -> str:
        """Raise ToolFailed: there is nothing to run."""
        raise ToolFailed(f"{name} is only defined in {self.name} and cannot be run")

    def close(self) -> None:
        """Do nothing: no process belongs to it."""


def read(path: Path) -> DefinedTools | list[ServerCommand]:
    """Return what a file defines; UsageError names the place that is wrong."""
    if not path.is_file():
        raise UsageError(f"--tools: {not_a_file(path)}")
    try:
        value = strict_json.loads(read_text(path))
    except ValueError as error:
        raise UsageError(f"{shown(path)} is not JSON: {error}") from None
    try:
        if isinstance(value, dict) and "mcpServers" in value:
            return list(_servers(value["mcpServers"]))
        found = value.get("tools") if isinstance(value, dict) and "tools" in value else value
        found = found if isinstance(found, list) else [found]
        specs = [_spec(one, f"tools.{i}") for i, one in enumerate(found)]
    except _Fault as fault:
        raise UsageError(f"{shown(path)}: {fault}") from None
    if not specs:
        raise UsageError(f"{shown(path)} has no tools; write a list of definitions in OpenAI's format")
    if (twice := first_repeated(spec.name for spec in specs)) is not None:
        raise UsageError(f"{shown(path)} defines the tool {twice} twice; rename one, or remove it")
    return DefinedTools(path.name, specs)


class _Fault(Exception):
    """What is wrong, and where."""


def _servers(value: object) -> "list[ServerCommand]":
    if not isinstance(value, dict) or not value:
        raise _Fault("mcpServers must be an object of servers by their names")
    return [_server(name, one) for name, one in value.items()]


def _server(name: str, value: object) -> ServerCommand:
    place = f"mcpServers.{name}"
    if not isinstance(value, dict):
        raise _Fault(f"{place} must be an object with a command")
    if "url" in value and "command" not in value:
        raise _Fault(f"{place} has a url; only servers that a command starts are supported")
    command, arguments, variables = value.get("command"), value.get("args", []), value.get("env") or {}
    if not isinstance(command, str) or not command:
        raise _Fault(f"{place}.command must be a string")
    if not isinstance(arguments, list) or not all(isinstance(one, str) for one in arguments):
        raise _Fault(f"{place}.args must be a list of strings")
    if not isinstance(variables, dict) or not all(isinstance(one, str) for one in variables.values()):
        raise _Fault(f"{place}.env must be an object of strings")
    return ServerCommand(name, command, arguments, variables)


def _spec(value: object, place: str) -> FunctionSpec:
    """Read one definition: OpenAI's, with `function` around it or without, Anthropic's, or one that an MCP server lists."""
    if not isinstance(value, dict):
        raise _Fault(f"{place} must be an object")
    if value.get("type", "function") != "function":
        raise _Fault(f"{place}.type must be function, not {json.dumps(value['type']):.40}")
    inner, fields = value.get("function"), value
    if isinstance(inner, dict):
        fields, place = inner, f"{place}.function"
    said = {key: one for key, one in fields.items() if one is not None and key not in ("type", *_HARMLESS)}
    if unknown := next((key for key in said if key not in _FIELDS), None):
        hint = did_you_mean(unknown, _FIELDS, f"a definition has {', '.join(_FIELDS)}")
        raise _Fault(f"{place}.{unknown:.40} is not a field of a tool; {hint}")
    schemas = [key for key in _SCHEMAS if key in said]
    if len(schemas) > 1:
        raise _Fault(f"{place} has {' and '.join(schemas)}; remove one")
    field = schemas[0] if schemas else _SCHEMAS[0]
    name, description, schema = said.get("name"), said.get("description", ""), said.get(field, {})
    strict = said.get("strict", False)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise _Fault(f"{place}.name must be 1 to 64 letters, digits, _ or -")
    if not isinstance(description, str):
        raise _Fault(f"{place}.description must be a string")
    if not isinstance(schema, dict):
        raise _Fault(f"{place}.{field} must be a JSON schema, an object")
    if not isinstance(strict, bool):
        raise _Fault(f"{place}.strict must be true or false")
    return FunctionSpec(name, description, schema, strict)


__all__ = ["DefinedTools", "ServerCommand", "read"]
