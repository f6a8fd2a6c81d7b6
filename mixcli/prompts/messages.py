"""What a prompt is made of: messages, tool calls and their results, tool definitions."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

Part = int | str  # a token, or one run of text


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool by the model; `arguments` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON text of a JSON schema.

    A tool that is `strict` wants its schema enforced whole; of others, what cannot be enforced is left to the model.
    """

    name: str
    description: str = ""
    parameters: str = "{}"
    strict: bool = False

    @cached_property
    def definition(self) -> object:
        """Return the tool as the JSON that OpenAI writes, in the order of Mistral's reference."""
        return {"type": "function", "function": self.function}

    @cached_property
    def function(self) -> object:
        """Return the name, the description and the schema of the parameters."""
        schema = json.loads(self.parameters)
        return {"name": self.name, "description": self.description, "parameters": schema}


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant or tool.

    `tokens` are the ids that a model's own answer was sampled as; with them it is never tokenized again. An assistant's turn may have
    `calls`, and the `reasoning` that precedes its text. A tool's turn is the result of the call `call_id`; `name` is the tool's. A text that
    was sent in `parts` has an empty line between them, which some formats do not want.
    """

    role: str
    content: str
    tokens: tuple[int, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    call_id: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()

    @property
    def spelled(self) -> tuple[Part, ...]:
        """Return the content as parts: its own tokens where they are known."""
        return self.tokens or (self.content,)

    @property
    def n_characters(self) -> int:
        """Return the length of all text in it that comes from the client."""
        n = len(self.content) + len(self.reasoning) + len(self.call_id) + len(self.name)
        return n + sum(len(one.id) + len(one.name) + len(one.arguments) for one in self.calls)


@dataclass(frozen=True)
class ToolUse:
    """The tools of a request and how they may be used: `auto` leaves it to the model, `required` wants a call. Where `only` names some, the others are
    shown and not called.

    Without `parallel` an answer has one call at most.
    """

    tools: tuple[Tool, ...] = ()
    choice: Literal["auto", "none", "required"] = "auto"
    only: tuple[str, ...] = ()
    parallel: bool = True

    @property
    def callable(self) -> tuple[Tool, ...]:
        """Return the tools that the model may call."""
        if self.choice == "none":
            return ()
        return tuple(tool for tool in self.tools if not self.only or tool.name in self.only)


NO_TOOLS = ToolUse()


@dataclass(frozen=True)
class PromptOptions:
    """What a prompt has beside its messages: the tools that the model may call, and whether and how much it is to reason.

    `thinking` is None where the format decides. An effort that `is_default_effort` marks is what a request without one means to its API, so a format that
    knows none has nothing to refuse.
    """

    tools: tuple[Tool, ...] = ()
    reasoning_effort: str | None = None
    thinking: bool | None = None
    is_default_effort: bool = False

    @property
    def n_characters(self) -> int:
        """Return the length of all text in it that comes from the client."""
        return sum(len(one.description) + len(one.parameters) for one in self.tools)


NO_OPTIONS = PromptOptions()


class Layout(Protocol):
    """Maps messages to parts, ready for the assistant's answer."""

    def __call__(
        self, messages: Sequence[Message], options: PromptOptions = NO_OPTIONS
    ) -> Iterable[Part]: ...
