"""The chat completion request as the host accepts it."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, create_model, model_validator

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.logprobs import MAX_TOP_LOGPROBS
from mixcli.engine.sampling import MAX_BIASES, SamplingParams
from mixcli.errors import BadRequest
from mixcli.host.api.json_body import load
from mixcli.host.call import ChatQuestion
from mixcli.prompts.context_overflow import Policy
from mixcli.prompts.formats import Message
from mixcli.request.sampling_table import MAX_STOPS, RANGES

MAX_CHOICES = 256
MAX_MESSAGES = 1 << 17  # each has a token at least
MAX_PARTS = 1 << 12

# A bool is not a number, a text is not a bool: what has the wrong type is refused by its name. Numbers beyond JSON's are body.py's.
STRICT = ConfigDict(strict=True)
Number = Annotated[float, Strict()]


def _whole(value: object) -> object:
    """Take 3.0 for 3, as JSON Schema does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, Strict(), BeforeValidator(_whole)]


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    model_config = STRICT

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of a conversation; `token_ids` are what an earlier answer was sampled as."""

    model_config = STRICT

    role: Literal["system", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(max_length=MAX_PARTS, fail_fast=True)]
    token_ids: list[Whole] = Field([], max_length=1 << 20, fail_fast=True)

    def message(self) -> Message:
        """Return the turn as the engine takes it."""
        if isinstance(self.content, str):
            return Message(self.role, self.content, tuple(self.token_ids))
        return Message(self.role, "".join(part.text for part in self.content))


class JsonSchema(BaseModel):
    """The schema of a response format, by OpenAI's names."""

    model_config = STRICT

    name: str = "answer"
    schema_: dict[str, object] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """OpenAI's way to ask for JSON."""

    model_config = STRICT

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(BaseModel):
    """vLLM's way to say what an answer may look like: one of these."""

    model_config = ConfigDict(strict=True, extra="forbid")

    json_: dict[str, object] | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = Field(None, min_length=1, max_length=MAX_CHOICES, fail_fast=True)

    @model_validator(mode="after")
    def one(self) -> Self:
        """Refuse none and several."""
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("exactly one of json, regex, grammar and choice is required")
        return self


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    model_config = STRICT

    include_usage: bool = False


if TYPE_CHECKING:

    class SamplingFields(BaseModel):
        """The sampling parameters that are numbers."""

else:
    SamplingFields = create_model(
        "SamplingFields",
        __config__=ConfigDict(strict=True, defer_build=True),
        **{name: (Whole | None if row.whole else Number | None, None) for name, row in RANGES.items()},
    )


class ChatRequest(SamplingFields):
    """POST /v1/chat/completions, with the numbers of the sampling table; what OpenAI knows and mixcli does not is ignored, as other servers do."""

    model_config = ConfigDict(strict=True, defer_build=False)

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Annotated[Whole, Field(ge=1, le=1)] = 1
    max_completion_tokens: Whole | None = None
    dry_sequence_breakers: list[str] | None = Field(None, max_length=MAX_STOPS, fail_fast=True)
    logit_bias: dict[str, Number] | None = Field(None, max_length=MAX_BIASES)
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS, fail_fast=True)] | None = None
    logprobs: bool = False
    top_logprobs: Whole | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    on_overflow: Policy = "error"
    return_progress: bool = False
    return_token_ids: bool = False
    speculate: bool = False
    park: bool = True
    persist: bool = False
    deterministic: bool = False

    def question(self) -> ChatQuestion:
        """Return the request as the engine's loop takes it; BadRequest names a field that is wrong."""
        asked = self.structured_outputs
        if self.deterministic and self.speculate:
            raise BadRequest(
                "speculate depends on timing and cannot be combined with deterministic; remove one of them",
                param="speculate",
            )
        return ChatQuestion(
            messages=tuple(message.message() for message in self.messages),
            sampling=self.sampling(),
            constraint=self.constraint(),
            choices=tuple(asked.choice) if asked and asked.choice else (),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            speculate=self.speculate,
            park=self.park,
            persist=self.persist,
            deterministic=self.deterministic,
            on_overflow=self.on_overflow,
        )

    def constraint(self) -> ConstraintSpec | None:
        """Return what the answer must look like, beside choices."""
        asked, form = self.structured_outputs, self.response_format
        if asked is not None:
            if asked.json_ is not None:
                return ConstraintSpec.of("json_schema", _parsed(asked.json_), param="structured_outputs.json")
            if asked.regex is not None:
                return ConstraintSpec.of("regex", asked.regex, param="structured_outputs.regex")
            if asked.grammar is not None:
                return ConstraintSpec.of("grammar", asked.grammar, param="structured_outputs.grammar")
        if form is None or form.type == "text" or asked is not None:
            return None
        if form.type == "json_object":
            return ConstraintSpec.of("json_object", "", param="response_format")
        if form.json_schema is None:
            raise BadRequest("response_format has no json_schema", param="response_format.json_schema")
        return ConstraintSpec.of(
            "json_schema", form.json_schema.schema_, param="response_format.json_schema.schema"
        )

    def sampling(self) -> SamplingParams:
        """Return the sampling parameters; values that are not said keep SamplingParams' defaults."""
        said: dict[str, Any] = self.model_dump(
            include=set(SamplingParams.__dataclass_fields__), exclude_none=True
        )
        if self.max_completion_tokens is not None:
            said["max_tokens"] = self.max_completion_tokens
        if self.dry_sequence_breakers is not None:
            said["dry_sequence_breakers"] = tuple(self.dry_sequence_breakers)
        if self.logit_bias is not None:
            said["logit_bias"] = {_token(name): bias for name, bias in self.logit_bias.items()}
        if self.stop is not None:
            said["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.deterministic:
            said.setdefault("seed", 0)
        return SamplingParams(**said)


def _parsed(schema: dict[str, object] | str) -> object:
    """Return a schema that may be JSON text, as vLLM takes it."""
    if not isinstance(schema, str):
        return schema
    return load(schema.encode("utf-8", "surrogatepass"), "structured_outputs.json")


def _token(name: str) -> int:
    """Read a token id that is the key of an object."""
    if not (name.isascii() and name.isdigit() and len(name) <= 10):
        raise BadRequest(f"logit_bias: {name!r:.40} is not a token id", param="logit_bias")
    return int(name)
