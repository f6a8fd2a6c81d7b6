"""OpenAI's chat completion request as the host takes it, and the answers that it gives."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from mixcli.engine.constraint_spec import ConstraintSpec
from mixcli.engine.formats import Message
from mixcli.engine.logprobs import MAX_TOP_LOGPROBS, TokenLogprobs
from mixcli.engine.overflow import Policy
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output
from mixcli.errors import BadRequest
from mixcli.host.call import Question

MOST_CHOICES = 256


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of a conversation; `token_ids` are what an earlier answer was sampled as."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]
    token_ids: list[int] = Field([], max_length=1 << 20)

    def message(self) -> Message:
        """Give the turn as the engine takes it."""
        if isinstance(self.content, str):
            return Message(self.role, self.content, tuple(self.token_ids))
        return Message(self.role, "".join(part.text for part in self.content))


class JsonSchema(BaseModel):
    """The schema of a response format, by OpenAI's names."""

    name: str = "answer"
    schema_: dict[str, Any] = Field(alias="schema")


class ResponseFormat(BaseModel):
    """OpenAI's way to ask for JSON."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(BaseModel):
    """vLLM's way to say what an answer may look like: one of these."""

    model_config = {"extra": "forbid"}

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: str | None = None
    grammar: str | None = None
    choice: list[str] | None = Field(None, min_length=1, max_length=MOST_CHOICES)

    @model_validator(mode="after")
    def one(self) -> Self:
        """Refuse none and several."""
        if len(self.model_dump(exclude_none=True)) != 1:
            raise ValueError("say exactly one of json, regex, grammar and choice")
        return self


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    include_usage: bool = False


class TokenizeRequest(BaseModel):
    """POST /tokenize: a conversation, ready for an answer, or a text."""

    messages: list[ChatMessage] | None = None
    prompt: str | None = None


class ExpertsRequest(BaseModel):
    """POST /mixcli/experts: a conversation that ends with an answer."""

    messages: list[ChatMessage] = Field(min_length=1)


class ChatRequest(BaseModel):
    """POST /v1/chat/completions; what OpenAI knows and mixcli does not is ignored, as other servers do."""

    messages: list[ChatMessage] = Field(min_length=1)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: Literal[1] = 1
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: list[str] | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    mirostat: int | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    on_overflow: Policy = "error"
    return_progress: bool = False
    return_token_ids: bool = False
    speculate: bool = False
    park: bool = True
    persist: bool = False

    def question(self) -> Question:
        """Give the request as the engine's loop takes it; BadRequest names a field that cannot be meant."""
        asked = self.structured_outputs
        return Question(
            messages=tuple(message.message() for message in self.messages),
            sampling=self.sampling(),
            constraint=self.constraint(),
            choices=tuple(asked.choice) if asked and asked.choice else (),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            speculate=self.speculate,
            park=self.park,
            persist=self.persist,
            on_overflow=self.on_overflow,
        )

    def constraint(self) -> ConstraintSpec | None:
        """Give what the answer must look like, beside choices."""
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
        """Give the sampling parameters; values that are not said keep SamplingParams' defaults."""
        said: dict[str, Any] = self.model_dump(
            include=set(SamplingParams.__dataclass_fields__), exclude_none=True
        )
        if self.max_completion_tokens is not None:
            said["max_tokens"] = self.max_completion_tokens
        if self.dry_sequence_breakers is not None:
            said["dry_sequence_breakers"] = tuple(self.dry_sequence_breakers)
        if self.stop is not None:
            said["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return SamplingParams(**said)


def _parsed(schema: dict[str, Any] | str) -> object:
    """Give a schema that may be JSON text, as vLLM takes it."""
    if not isinstance(schema, str):
        return schema
    try:
        return json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the schema is no JSON: {error}", param="structured_outputs.json") from None


@dataclass(frozen=True)
class Answerer:
    """Writes what one call brings as OpenAI's objects.

    `choices` are the texts that the answer was chosen from, `pieces` gives tokens' bytes, `n_dropped` is how many messages did not fit.
    """

    id: str
    model: str
    request: ChatRequest
    pieces: Callable[[Sequence[int]], list[bytes]]
    n_dropped: int

    def opening(self) -> dict[str, Any]:
        """Give the first event of a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, output: Output) -> dict[str, Any]:
        """Give the event that says how far the prompt has been read, as llama-server does."""
        at = output.progress
        assert at is not None
        shown = {
            "total": at.n_prompt,
            "cache": at.n_cached,
            "processed": at.n_done,
            "time_ms": at.seconds * 1000,
        }
        return {**self._envelope("chat.completion.chunk", []), "prompt_progress": shown}

    def delta(self, output: Output) -> dict[str, Any]:
        """Give one event with text."""
        extra = {"logprobs": self._logprobs(output.logprobs)} if self.request.logprobs else {}
        return self._chunk({"content": output.text}, None, extra)

    def closing(self, last: Output, token_ids: Sequence[int]) -> dict[str, Any]:
        """Give the event with the reason that the answer ended."""
        return self._chunk({}, last.finish_reason, self._extras(last, token_ids))

    def accounts(self, last: Output) -> dict[str, Any]:
        """Give the event that closes a stream with the counts and timings."""
        return {**self._envelope("chat.completion.chunk", []), **_accounts(last)}

    def whole(self, outputs: Sequence[Output], token_ids: Sequence[int]) -> dict[str, Any]:
        """Give a whole answer."""
        last = outputs[-1]
        choice: dict[str, Any] = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(output.text for output in outputs)},
            "finish_reason": last.finish_reason,
            **self._extras(last, token_ids),
        }
        if self.request.logprobs:
            choice["logprobs"] = self._logprobs([one for output in outputs for one in output.logprobs])
        return {**self._envelope("chat.completion", [choice]), **_accounts(last)}

    def _extras(self, last: Output, token_ids: Sequence[int]) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        if last.label_probs:
            asked = self.request.structured_outputs
            assert asked is not None
            extras["label_probs"] = dict(zip(asked.choice or (), last.label_probs, strict=True))
        if self.request.return_token_ids:
            extras["token_ids"] = list(token_ids)
        return extras

    def _chunk(
        self, delta: dict[str, str], finish_reason: str | None = None, extra: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **(extra or {})}
        return self._envelope("chat.completion.chunk", [choice])

    def _logprobs(self, chosen: Sequence[TokenLogprobs]) -> dict[str, Any]:
        return {
            "content": [
                {
                    **self._logprob(one.token, one.logprob),
                    "top_logprobs": [self._logprob(token, logprob) for token, logprob in one.top],
                }
                for one in chosen
            ]
        }

    def _logprob(self, token: int, logprob: float) -> dict[str, Any]:
        (piece,) = self.pieces([token])
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}

    def _envelope(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        envelope = {
            "id": self.id,
            "object": kind,
            "created": int(time.time()),
            "model": self.model,
            "choices": choices,
        }
        return {**envelope, "dropped_messages": self.n_dropped} if self.n_dropped else envelope


def _accounts(last: Output) -> dict[str, Any]:
    """Give the counts as OpenAI does, and the timings as llama-server does (milliseconds, tokens a second)."""
    cost = last.usage
    if cost is None:
        return {}
    n_read = cost.n_prompt - cost.n_cached
    n_decoded = max(0, cost.n_generated - 1)  # the first token comes out of the prefill
    return {
        "usage": {
            "prompt_tokens": cost.n_prompt,
            "completion_tokens": cost.n_generated,
            "total_tokens": cost.n_prompt + cost.n_generated,
            "prompt_tokens_details": {"cached_tokens": cost.n_cached},
        },
        "timings": {
            "cache_n": cost.n_cached,
            "prompt_n": n_read,
            "prompt_ms": cost.seconds_prefill * 1000,
            "prompt_per_second": _rate(n_read, cost.seconds_prefill),
            "predicted_n": cost.n_generated,
            "predicted_ms": cost.seconds_decode * 1000,
            "predicted_per_second": _rate(n_decoded, cost.seconds_decode),
            "draft_n": cost.n_drafted,
            "draft_n_accepted": cost.n_accepted,
        },
    }


def _rate(n: int, seconds: float) -> float:
    return n / seconds if seconds else 0.0
