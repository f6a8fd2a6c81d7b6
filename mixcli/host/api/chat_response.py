"""OpenAI's chat completion answers: whole ones and the events of a stream, with usage, timings and logprobs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from mixcli import __version__
from mixcli.engine.field_scores import FieldProbability
from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sequence import Output, Usage
from mixcli.host.api.chat_schema import ChatRequest
from mixcli.host.api.events import DONE, JsonObject
from mixcli.host.api.segments import IdOf, deltas, finish_reason, message
from mixcli.host.api.token_logprobs import Pieces, token_logprobs
from mixcli.host.call import Call
from mixcli.host.protocol.errors import error_body
from mixcli.host.protocol.messages import PromptProgress, Timings, TokenUsage
from mixcli.prompts.answer_parser import Segment
from mixcli.prompts.tool_json import nine

FINGERPRINT = (
    f"mixcli-{__version__}"  # of what computes: with it, a seed and a prompt an answer can be reproduced
)


@dataclass(frozen=True)
class ChatResponseWriter:
    """Writes what calls bring as OpenAI's chat completions (an AnswerWriter); `pieces` returns the bytes of tokens."""

    id: str
    model: str
    created: int
    request: ChatRequest
    pieces: Pieces
    end: bytes = DONE
    named_events: bool = False

    @property
    def shows_progress(self) -> bool:
        return self.request.return_progress

    def opening(self, calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the first events of a stream."""
        for call in calls:
            yield self._chunk(call, {"role": "assistant", "content": "", "refusal": None})

    def progress(self, call: Call, output: Output) -> Iterator[JsonObject]:
        """Return the event that says how far the prompt has been read, as llama-server does."""
        at = output.progress
        assert at is not None
        shown = PromptProgress(at.n_prompt, at.n_cached, at.n_done, at.seconds * 1000)
        yield {**self._chunk_of([], call), "prompt_progress": shown.to_json()}

    def delta(self, call: Call, output: Output) -> Iterator[JsonObject]:
        """Return the events of one output: of its text, or of each segment."""
        extra: JsonObject = {"logprobs": self._logprobs(output.logprobs)} if self.request.logprobs else {}
        segments = output.segments or (Segment("content", output.text),)
        for delta in deltas(segments, self._ids(call)):
            yield self._chunk(call, delta, None, extra)
            extra = {}

    def closing(self, call: Call, last: Output) -> Iterator[JsonObject]:
        """Return the event with the reason that the answer ended."""
        reason = finish_reason(last.finish_reason, call.segments)
        yield self._chunk(call, {}, reason, self._extras(call, last))

    def accounts(self, calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the event that closes a stream with the counts and timings."""
        if self.request.stream_options.include_usage:
            yield {**self._chunk_of([], calls[0]), **self._accounts(calls)}

    def failure(self, error: Exception) -> Iterator[JsonObject]:
        """Return the error as the last event of a stream."""
        yield error_body(error)[1].to_json()

    def whole(self, calls: Sequence[Call]) -> JsonObject:
        """Return a whole answer."""
        envelope = self._envelope("chat.completion", [self._choice(call) for call in calls], calls[0])
        return {**envelope, **self._accounts(calls)}

    def _choice(self, call: Call) -> JsonObject:
        last = call.outputs[-1]
        choice: JsonObject = {
            "index": call.index,
            "message": message(call.text, call.segments, self._ids(call)),
            "logprobs": None,
            "finish_reason": finish_reason(last.finish_reason, call.segments),
            **self._extras(call, last),
        }
        if self.request.logprobs:
            choice["logprobs"] = self._logprobs([one for output in call.outputs for one in output.logprobs])
        return choice

    def _ids(self, call: Call) -> IdOf:
        """Return the ids of an answer's tool calls: nine letters and digits, as Mistral's formats want them back."""
        return lambda place: nine(f"{self.id} {call.index} {place}")

    def _accounts(self, calls: Sequence[Call]) -> JsonObject:
        """Return the counts and timings; of a deterministic answer only the counts that are the same each time."""
        costs = [call.outputs[-1].usage for call in calls if call.outputs]
        cost = _all(one for one in costs if one is not None)
        if cost is None:
            return {}
        usage = _usage(cost)
        if self.request.deterministic:
            return {"usage": usage._replace(extra={}).to_json()}
        return {"usage": usage.to_json(), "timings": _timings(cost).to_json()}

    def _extras(self, call: Call, last: Output) -> JsonObject:
        extras: JsonObject = {}
        if last.label_probs:
            asked = self.request.structured_outputs
            assert asked is not None
            extras["label_probs"] = dict(zip(asked.choice or (), last.label_probs, strict=True))
        if last.fields:
            extras["field_probs"] = {one.name: _field(one) for one in last.fields}
        if self.request.return_token_ids:
            extras["token_ids"] = list(call.token_ids)
        return extras

    def _chunk(
        self,
        call: Call,
        delta: JsonObject,
        reason: str | None = None,
        extra: JsonObject | None = None,
    ) -> JsonObject:
        choice = {"index": call.index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._chunk_of([{**choice, **(extra or {})}], call)

    def _chunk_of(self, choices: list[JsonObject], call: Call) -> JsonObject:
        """Return an event; where counts were asked for, each has the field, as OpenAI does."""
        counts: JsonObject = {"usage": None} if self.request.stream_options.include_usage else {}
        return {**self._envelope("chat.completion.chunk", choices, call), **counts}

    def _logprobs(self, chosen: Sequence[TokenLogprobs]) -> JsonObject:
        return {"content": token_logprobs(self.pieces, chosen)}

    def _envelope(self, kind: str, choices: list[JsonObject], call: Call) -> JsonObject:
        envelope = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": FINGERPRINT,
            "choices": choices,
        }
        return {**envelope, "dropped_messages": call.n_dropped} if call.n_dropped else envelope


def _field(one: FieldProbability) -> JsonObject:
    """Return the probability of a field: exact, with those of all its values, or the product over its tokens."""
    if one.values:
        return {"probability": one.probability, "values": dict(one.values)}
    return {"token_product": one.probability, "n_tokens": one.n_tokens}


def _all(costs: Iterable[Usage]) -> Usage | None:
    """Return the cost of all answers to one prompt: it is read once, and they are written side by side."""
    found = list(costs)
    if not found:
        return None
    first = min(found, key=lambda one: one.n_cached)
    return replace(
        first,
        n_generated=sum(one.n_generated for one in found),
        n_drafted=sum(one.n_drafted for one in found),
        n_accepted=sum(one.n_accepted for one in found),
        n_reasoning=sum(one.n_reasoning for one in found),
        seconds_decode=max(one.seconds_decode for one in found),
    )


def _usage(cost: Usage) -> TokenUsage:
    """Return the counts as OpenAI does."""
    details = {
        "prompt_tokens_details": {"cached_tokens": cost.n_cached},
        "completion_tokens_details": {"reasoning_tokens": cost.n_reasoning},
    }
    return TokenUsage(cost.n_prompt, cost.n_generated, cost.n_prompt + cost.n_generated, details)


def _timings(cost: Usage) -> Timings:
    """Return the times as llama-server does (milliseconds, tokens per second)."""
    n_read = cost.n_prompt - cost.n_cached
    n_decoded = max(0, cost.n_generated - 1)  # the first token comes out of the prefill
    return Timings(
        cache_n=cost.n_cached,
        prompt_n=n_read,
        prompt_ms=cost.seconds_prefill * 1000,
        prompt_per_second=_rate(n_read, cost.seconds_prefill),
        predicted_n=cost.n_generated,
        predicted_ms=cost.seconds_decode * 1000,
        predicted_per_second=_rate(n_decoded, cost.seconds_decode),
        draft_n=cost.n_drafted,
        draft_n_accepted=cost.n_accepted,
    )


def _rate(n: int, seconds: float) -> float:
    return n / seconds if seconds else 0.0
