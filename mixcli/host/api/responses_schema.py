"""OpenAI's Responses request, stateless, and its translation into a chat completion request."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mixcli.errors import BadRequest, ContextOverflow
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.events import JsonObject
from mixcli.host.api.field_rules import FieldRule, harmless, only
from mixcli.host.api.json_body import validated
from mixcli.host.api.message_schema import MAX_MESSAGES
from mixcli.host.api.responses_items import CallItem, InputItem, MessageItem, Turn, one_of, turns_of
from mixcli.host.api.tool_schema import flat_tools
from mixcli.host.api.wire_model import Number, Whole, WireModel, as_sent, at_most, not_empty, relocated
from mixcli.host.call import ChatQuestion

MAX_TOOLS = 512
MAX_INCLUDED = 64
MAX_METADATA = 16  # as OpenAI has it
LOGPROBS = "message.output_text.logprobs"  # what else can be included is always there, or only OpenAI has it
STATELESS = "nothing is stored; send the whole conversation in input"

RESPONSES_RULES: Mapping[str, FieldRule] = {
    "store": harmless("OpenAI", "nothing is stored, and the response says so"),
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
# fields of a chat request and where they come from
RENAMED = {
    "max_tokens": "max_output_tokens",
    "response_format.json_schema.schema": "text.format.schema",
    "reasoning_effort": "reasoning.effort",
}


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
            "defer_loading": only("OpenAI", False, why="send only the tools that the model may use"),
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

    def to_chat(self) -> JsonObject:
        """Return the choice in the form of chat completions."""
        return {"type": "function", "function": {"name": self.name}}


class AllowedChoice(WireModel):
    """The tools that may be called, of all that the model is shown."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[Annotated[FunctionChoice, one_of("choices", "function")]] = Field(
        min_length=1, max_length=MAX_TOOLS, fail_fast=True
    )

    def to_chat(self) -> JsonObject:
        """Return the choice in the form of chat completions."""
        chosen = [one.to_chat() for one in self.tools]
        return {"type": self.type, "allowed_tools": {"mode": self.mode, "tools": chosen}}


class TextFormat(WireModel):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str = "answer"
    description: str = ""
    schema_: dict[str, object] | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def of_its_type(self) -> Self:
        """Refuse a schema that another type leaves out."""
        if self.schema_ is not None and self.type != "json_schema":
            raise ValueError(f"the type {self.type} has no schema; use the type json_schema")
        return self

    def to_chat(self) -> JsonObject:
        """Return the form as chat completions have it."""
        if self.type != "json_schema":
            return {"type": self.type}
        schema = {"name": self.name, "schema": self.schema_, "strict": self.strict}
        return {"type": self.type, "json_schema": schema}


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
        shown = harmless("OpenAI", "reasoning is always shown in full")
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
    tools: list[Annotated[FunctionTool, one_of("tools", "function")]] = Field(
        [], max_length=MAX_TOOLS, fail_fast=True
    )
    tool_choice: (
        Literal["auto", "none", "required"]
        | Annotated[
            Annotated[FunctionChoice | AllowedChoice, Field(discriminator="type")],
            one_of("choices", "function", "allowed_tools"),
        ]
    ) = "auto"
    parallel_tool_calls: bool = True
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: Annotated[dict[str, str], at_most(MAX_METADATA)] = Field({})
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

    def _turns(self) -> list[Turn]:
        """Return the conversation as chat messages, each with the items that it was made of."""
        items = [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else self.input
        said = [Turn({"role": "system", "content": self.instructions})] if self.instructions else []
        return [*said, *turns_of(items)]

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
        return self.tool_choice if isinstance(self.tool_choice, str) else self.tool_choice.to_chat()
