"""The chat completion request as the host accepts it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, create_model, model_validator

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.logprobs import MAX_TOP_LOGPROBS
from mixcli.engine.sampling import MAX_BIASES, SamplingParams
from mixcli.errors import BadRequest
from mixcli.host.api.chat_fields import (
    CHAT_RULES,
    SCHEMA_RULES,
    STREAM_RULES,
    STRUCTURED_RULES,
    TEMPLATE_OPTION_RULES,
)
from mixcli.host.api.field_rules import FieldRule
from mixcli.host.api.json_body import load
from mixcli.host.api.message_schema import MAX_MESSAGES, ChatMessage, conversation
from mixcli.host.api.tool_schema import MAX_TOOLS, ToolChoice, ToolDefinition, tool_use
from mixcli.host.api.wire_model import Number, Whole, WireModel, at_most, not_empty
from mixcli.host.call import ChatQuestion
from mixcli.prompts.context_overflow import Policy
from mixcli.request.sampling_table import MAX_STOPS, MAX_TOKENS, RANGES

MAX_CHOICES = 256  # labels that an answer is chosen from
MAX_ANSWERS = 128  # to one conversation, as OpenAI has it
Value = TypeVar("Value", bool, str)
NONE = -1  # what llama-server and vLLM write for no limit, and for a random seed


class JsonSchema(WireModel):
    """The schema of a response format, by OpenAI's names; with `strict` false what cannot be enforced is left to the model."""

    name: str = "answer"
    strict: bool | None = None
    schema_: dict[str, object] = Field(alias="schema")

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return SCHEMA_RULES


class ResponseFormat(WireModel):
    """OpenAI's way to ask for JSON; `schema` is llama-server's place for a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, object] | None = Field(None, alias="schema")

    def constraint(self) -> ConstraintSpec | None:
        """Return what the answer must look like; None for free text."""
        if self.type == "text":
            if self.json_schema is not None or self.schema_ is not None:
                raise BadRequest(
                    "response_format of the type text has a schema; use the type json_schema",
                    param="response_format.type",
                )
            return None
        if self.json_schema is not None and self.schema_ is not None:
            raise BadRequest(
                "response_format has two schemas; remove schema or json_schema",
                param="response_format.schema",
            )
        if self.schema_ is not None:
            return ConstraintSpec.of("json_schema", self.schema_, param="response_format.schema")
        if self.json_schema is not None:
            return ConstraintSpec.of(
                "json_schema",
                self.json_schema.schema_,
                param="response_format.json_schema.schema",
                loose=self.json_schema.strict is False,
            )
        if self.type == "json_object":
            return ConstraintSpec.of("json_object", "", param="response_format")
        raise BadRequest("response_format has no json_schema", param="response_format.json_schema")


class StructuredOutputs(WireModel):
    """vLLM's way to say what an answer may look like: one of these."""

    json_: dict[str, object] | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = Field(None, min_length=1, max_length=MAX_CHOICES, fail_fast=True)

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return STRUCTURED_RULES

    @model_validator(mode="after")
    def one(self) -> Self:
        """Refuse none and several."""
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of json, regex, grammar and choice is required")
        return self

    def constraint(self) -> ConstraintSpec | None:
        """Return what the answer must look like; None for choices."""
        if self.json_ is not None:
            return ConstraintSpec.of("json_schema", _parsed(self.json_), param="structured_outputs.json")
        if self.regex is not None:
            return ConstraintSpec.of("regex", self.regex, param="structured_outputs.regex")
        if self.grammar is not None:
            return ConstraintSpec.of("grammar", self.grammar, param="structured_outputs.grammar")
        return None


class StreamOptions(WireModel):
    """What a stream carries beside the text."""

    include_usage: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return STREAM_RULES


class ThinkingSwitch(WireModel):
    """Whether the model thinks before it answers, as DeepSeek writes it."""

    type: Literal["enabled", "disabled"]


class TemplateOptions(WireModel):
    """What other servers pass to a chat template, as far as it has a meaning for every format."""

    enable_thinking: bool | None = None
    reasoning_effort: str | None = None

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return TEMPLATE_OPTION_RULES


if TYPE_CHECKING:

    class SamplingFields(WireModel):
        """The sampling parameters that are numbers."""

        max_tokens: int | None
        min_tokens: int | None

else:
    SamplingFields = create_model(
        "SamplingFields",
        __base__=WireModel,
        **{name: (Whole | None if row.whole else Number | None, None) for name, row in RANGES.items()},
    )


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions, with the numbers of the sampling table; what other servers know besides: chat_fields.py."""

    messages: Annotated[list[ChatMessage], not_empty("at least one message")] = Field(
        min_length=1, max_length=MAX_MESSAGES, fail_fast=True
    )
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Annotated[Whole, Field(ge=1, le=MAX_ANSWERS)] = 1
    dry_sequence_breakers: list[str] | None = Field(None, max_length=MAX_STOPS, fail_fast=True)
    logit_bias: Annotated[dict[str, Number], at_most(MAX_BIASES)] | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    logprobs: bool = False
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    tools: list[ToolDefinition] = Field([], max_length=MAX_TOOLS, fail_fast=True)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    reasoning_effort: str | None = None
    enable_thinking: bool | ThinkingSwitch | None = None
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    thinking_token_budget: Annotated[Whole, Field(ge=NONE)] | None = None
    ignore_eos: bool = False
    add_generation_prompt: bool = True
    continue_final_message: bool | None = None
    on_overflow: Policy = "error"
    return_progress: bool = False
    return_token_ids: bool = False
    speculate: bool = False
    park: bool = True
    persist: bool = False
    deterministic: bool = False
    field_probs: bool = False

    @classmethod
    def rules(cls) -> Mapping[str, FieldRule]:
        return CHAT_RULES

    def question(self) -> ChatQuestion:
        """Return the request as the engine's loop takes it; BadRequest names a field that is wrong."""
        with self.named_as_sent():
            self._check()
            asked = self.structured_outputs
            constraint = self.constraint()
            self._check_field_probs(constraint)
            return ChatQuestion(
                messages=conversation(self.messages),
                sampling=self.sampling(),
                constraint=constraint,
                choices=tuple(asked.choice) if asked and asked.choice else (),
                top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
                speculate=self.speculate,
                park=self.park,
                persist=self.persist,
                deterministic=self.deterministic,
                field_probs=self.field_probs,
                on_overflow=self.on_overflow,
                tool_use=tool_use(self.tools, self.tool_choice, parallel=self.parallel_tool_calls),
                reasoning_effort=self._of_template("reasoning_effort", self.reasoning_effort),
                thinking=self._of_template("enable_thinking", self._thinks),
                thinking_budget=None if self.thinking_token_budget == NONE else self.thinking_token_budget,
            )

    def questions(self) -> list[ChatQuestion]:
        """Return a question for each of the `n` answers; a seed gives each another one, and only the first is kept for a next turn."""
        first = self.question()
        others = [
            replace(first, sampling=first.sampling.varied(i), park=False, persist=False)
            for i in range(1, self.n)
        ]
        return [first, *others]

    def constraint(self) -> ConstraintSpec | None:
        """Return what the answer must look like, beside choices."""
        asked, form = self.structured_outputs, self.response_format
        if asked is None:
            return form.constraint() if form else None
        if form is not None and form.type != "text":
            raise BadRequest(
                "response_format and structured_outputs both constrain the answer; remove one of them",
                param="structured_outputs",
            )
        return asked.constraint()

    def sampling(self) -> SamplingParams:
        """Return the sampling parameters; values that are not said keep SamplingParams' defaults."""
        said: dict[str, Any] = self.model_dump(
            include=set(SamplingParams.__dataclass_fields__), exclude_none=True
        )
        for name in ("max_tokens", "seed"):
            if said.get(name) == NONE:
                del said[name]
        if said.get("top_k") == NONE:
            said["top_k"] = 0
        if self.dry_sequence_breakers is not None:
            said["dry_sequence_breakers"] = tuple(self.dry_sequence_breakers)
        if self.logit_bias is not None:
            said["logit_bias"] = {_token(name): bias for name, bias in self.logit_bias.items()}
        if self.stop is not None:
            said["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.ignore_eos:
            said["min_tokens"] = MAX_TOKENS
        if self.deterministic:
            said.setdefault("seed", 0)
        return SamplingParams(**said)

    @property
    def _thinks(self) -> bool | None:
        switch = self.enable_thinking
        return switch.type == "enabled" if isinstance(switch, ThinkingSwitch) else switch

    def _of_template(self, name: str, said: Value | None) -> Value | None:
        """Return an option that may stand in chat_template_kwargs; BadRequest where it stands in both places with two values."""
        nested: Value | None = getattr(self.chat_template_kwargs, name)
        if said is not None and nested is not None and said != nested:
            raise BadRequest(
                f"{name} and chat_template_kwargs.{name} differ; send one of them",
                param=f"chat_template_kwargs.{name}",
            )
        return nested if said is None else said

    def _check_field_probs(self, constraint: ConstraintSpec | None) -> None:
        """Raise BadRequest where there would be no fields."""
        if not self.field_probs:
            return
        if constraint is None or constraint.kind not in ("json_schema", "json_object"):
            raise BadRequest(
                "field_probs is only possible for answers in JSON; add response_format", param="field_probs"
            )
        if self.tools:
            raise BadRequest(
                "field_probs is not possible with tools; remove one of them", param="field_probs"
            )

    def _check(self) -> None:
        """Raise BadRequest for fields that ask for nothing, or for something else, beside the others."""
        if self.deterministic and self.speculate:
            raise BadRequest(
                "speculate depends on timing and cannot be combined with deterministic; remove one of them",
                param="speculate",
            )
        if self.min_tokens and self.max_tokens and self.min_tokens > self.max_tokens >= 0:
            raise BadRequest(
                f"min_tokens is {self.min_tokens:,}, more than max_tokens, {self.max_tokens:,}",
                param="min_tokens",
            )
        if "stream_options" in self.model_fields_set and not self.stream:
            raise BadRequest("stream_options is only allowed with stream", param="stream_options")
        if self.tools and self.structured_outputs is not None and self.structured_outputs.choice:
            raise BadRequest(
                "structured_outputs.choice is not possible with tools; remove one of them",
                param="structured_outputs.choice",
            )
        if self.top_logprobs and not self.logprobs:
            raise BadRequest("top_logprobs is only allowed with logprobs", param="top_logprobs")
        continues = self.messages[-1].role == "assistant"
        if self.continue_final_message is not None and self.continue_final_message != continues:
            raise BadRequest(
                "continue_final_message must be true if the last message has the role assistant, else false",
                param="continue_final_message",
            )
        if not self.add_generation_prompt and not continues:
            raise BadRequest(
                "add_generation_prompt false is only allowed with a last message of the role assistant",
                param="add_generation_prompt",
            )
        for i, message in enumerate(self.messages):
            if message.prefix and not (continues and message is self.messages[-1]):
                raise BadRequest(
                    "prefix is only allowed in a last message of the role assistant",
                    param=f"messages.{i}.prefix",
                )


def _parsed(schema: dict[str, object] | str) -> object:
    """Return a schema that may be JSON text, as vLLM takes it."""
    if not isinstance(schema, str):
        return schema
    return load(schema.encode("utf-8", "surrogatepass"), "structured_outputs.json")


def _token(name: str) -> int:
    """Read a token id that is the key of an object."""
    if not (
        name.isascii() and name.isdigit() and len(name) <= 10 and name == str(int(name))
    ):  # "05" is "5" too
        raise BadRequest(f"logit_bias: {name!r:.40} is not a token id", param="logit_bias")
    return int(name)


__all__ = ["MAX_ANSWERS", "ChatRequest", "ResponseFormat", "StreamOptions", "StructuredOutputs"]
