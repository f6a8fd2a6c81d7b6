"""All tools of a command: their definitions as the model sees them, and how they are called."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

from mixcli.request.prompt import FunctionCall
from mixcli.system.text import clean, did_you_mean, shown

CALL_SECONDS = 120.0  # in which a tool must return its result
MAX_RESULT = 1 << 16  # characters of a result that a model is shown; no context of a usual length holds more

_OTHER = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST = 64  # characters of a name, as OpenAI limits it


@dataclass(frozen=True)
class FunctionSpec:
    """A tool as the model sees it; `parameters` is the JSON schema of its arguments, which `strict` has enforced whole."""

    name: str
    description: str = ""
    parameters: Mapping[str, object] = field(default_factory=dict)
    strict: bool = False

    def to_json(self) -> dict[str, object]:
        """Return the definition as OpenAI writes it."""
        function: dict[str, object] = {"name": self.name}
        if self.description:
            function["description"] = self.description
        if self.parameters:
            function["parameters"] = dict(self.parameters)
        if self.strict:
            function["strict"] = True
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class ToolResult:
    """What a tool returned, as the model reads it; `is_error` where it failed."""

    text: str
    is_error: bool = False


class ToolFailed(Exception):
    """A call that has no result: the reason from the tool or its process."""


class ToolSource(Protocol):
    """Where tools come from: one file, or one server."""

    @property
    def name(self) -> str:
        """Return the name by which people know it."""

    @property
    def specs(self) -> Sequence[FunctionSpec]:
        """Return its tools."""

    @property
    def notes(self) -> Sequence[str]:
        """Return what a person should know, as a function that is not offered."""

    def call(self, name: str, arguments: Mapping[str, object]) -> str:
        """Return the result of one of its tools; ToolFailed says why there is none, KeyboardInterrupt ends the tool."""

    def close(self) -> None:
        """End its process."""


class Toolbox:
    """The tools of all sources; close it when the command ends.

    Names of two sources that are the same get a number, and signs that no name of a tool has become underscores.
    """

    def __init__(self, sources: Sequence[ToolSource]) -> None:
        self._sources = sources
        self._places: dict[str, tuple[ToolSource, str]] = {}
        self._renamed: list[str] = []
        specs = []
        for source in sources:
            for spec in source.specs:
                name = self._free(_OTHER.sub("_", spec.name)[:_LONGEST] or "tool")
                self._places[name] = source, spec.name
                if name != spec.name:
                    self._renamed.append(
                        f"{shown(source.name)}: the tool {shown(spec.name)} is called {name} here"
                    )
                specs.append(replace(spec, name=name))
        self.specs: tuple[FunctionSpec, ...] = tuple(specs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def notes(self) -> list[str]:
        """Return the notes of all sources, and the tools that have another name here."""
        return [*(note for source in self._sources for note in source.notes), *self._renamed]

    def definitions(self) -> list[dict[str, object]]:
        """Return the definitions as a request has them."""
        return [spec.to_json() for spec in self.specs]

    def source_of(self, name: str) -> str:
        """Return where a tool comes from; empty for one that does not exist."""
        found = self._places.get(name)
        return found[0].name if found else ""

    def call(self, call: FunctionCall, limit: int = MAX_RESULT) -> ToolResult:
        """Run a tool; whatever goes wrong becomes a result, but KeyboardInterrupt, which ends it. `limit` is the longest result, in characters."""
        found = self._places.get(call.name)
        if found is None:
            hint = did_you_mean(call.name, self._places, f"the tools are {', '.join(self._places)}")
            return _failed(f"tool {call.name!r:.80} not found; {hint}")
        try:
            arguments = json.loads(call.arguments or "{}")
        except (ValueError, RecursionError) as error:
            return _failed(f"the arguments are not JSON: {error}")
        if not isinstance(arguments, dict):
            return _failed("the arguments are not a JSON object")
        source, name = found
        try:
            return ToolResult(_shortened(clean(source.call(name, arguments)), limit))
        except ToolFailed as error:
            return _failed(str(error))

    def close(self) -> None:
        """End the processes of all sources."""
        with contextlib.ExitStack() as stack:
            for source in self._sources:
                stack.callback(source.close)

    def _free(self, name: str) -> str:
        number, free = 1, name
        while free in self._places:
            number += 1
            free = f"{name[: _LONGEST - 4]}_{number}"
        return free


def _failed(why: str) -> ToolResult:
    return ToolResult(_shortened(clean(f"Error: {why}")), is_error=True)


def _shortened(text: str, limit: int = MAX_RESULT) -> str:
    """Return a result that a context can hold, with the number of characters that are omitted."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[{len(text) - limit:,} more characters of the result are omitted]"


__all__ = ["CALL_SECONDS", "MAX_RESULT", "FunctionSpec", "ToolFailed", "ToolResult", "ToolSource", "Toolbox"]
