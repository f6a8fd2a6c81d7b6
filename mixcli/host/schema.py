"""OpenAI's chat completion request as the host takes it, and the answers that it gives."""

import time
from typing import Any, Literal

from pydantic import BaseModel, Field

from mixcli.engine.formats import Message
from mixcli.engine.sampling import SamplingParams
from mixcli.engine.sequence import Output


class TextPart(BaseModel):
    """One part of a message's content; only text is understood."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]

    def message(self) -> Message:
        """Give the turn as the engine takes it."""
        if isinstance(self.content, str):
            return Message(self.role, self.content)
        return Message(self.role, "".join(part.text for part in self.content))


class StreamOptions(BaseModel):
    """What a stream carries beside the text."""

    include_usage: bool = False


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
    repeat_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None

    def sampling(self) -> SamplingParams:
        """Give the sampling parameters; values that are not said keep SamplingParams' defaults."""
        said: dict[str, Any] = self.model_dump(
            include=set(SamplingParams.__dataclass_fields__), exclude_none=True
        )
        if self.max_completion_tokens is not None:
            said["max_tokens"] = self.max_completion_tokens
        if self.stop is not None:
            said["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        return SamplingParams(**said)


def chunk(
    answer_id: str, model: str, delta: dict[str, str], finish_reason: str | None = None
) -> dict[str, Any]:
    """Give one event of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return _envelope(answer_id, model, "chat.completion.chunk", [choice])


def usage_chunk(answer_id: str, model: str, last: Output) -> dict[str, Any]:
    """Give the event that closes a stream with the counts and timings."""
    return {**_envelope(answer_id, model, "chat.completion.chunk", []), **_accounts(last)}


def completion(answer_id: str, model: str, text: str, last: Output) -> dict[str, Any]:
    """Give a whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": last.finish_reason,
    }
    return {**_envelope(answer_id, model, "chat.completion", [choice]), **_accounts(last)}


def _envelope(answer_id: str, model: str, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": answer_id, "object": kind, "created": int(time.time()), "model": model, "choices": choices}


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
        },
    }


def _rate(n: int, seconds: float) -> float:
    return n / seconds if seconds else 0.0
