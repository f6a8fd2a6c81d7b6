"""OpenAI's chat completion answers: whole ones and the events of a stream, with usage, timings and logprobs."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sequence import Output, Usage
from mixcli.host.openai_schema import ChatRequest
from mixcli.host.protocol.messages import PromptProgress, Timings, TokenUsage

JsonObject = dict[str, object]


@dataclass(frozen=True)
class ResponseWriter:
    """Writes what one call brings as OpenAI's objects.

    `choices` are the texts that the answer was chosen from, `pieces` gives tokens' bytes, `n_dropped` is how many messages did not fit.
    """

    id: str
    model: str
    request: ChatRequest
    pieces: Callable[[Sequence[int]], list[bytes]]
    n_dropped: int

    def opening(self) -> JsonObject:
        """Return the first event of a stream."""
        return self._chunk({"role": "assistant", "content": ""})

    def progress(self, output: Output) -> JsonObject:
        """Return the event that says how far the prompt has been read, as llama-server does."""
        at = output.progress
        assert at is not None
        shown = PromptProgress(at.n_prompt, at.n_cached, at.n_done, at.seconds * 1000)
        return {**self._envelope("chat.completion.chunk", []), "prompt_progress": shown.to_json()}

    def delta(self, output: Output) -> JsonObject:
        """Return one event with text."""
        extra: JsonObject = {"logprobs": self._logprobs(output.logprobs)} if self.request.logprobs else {}
        return self._chunk({"content": output.text}, None, extra)

    def closing(self, last: Output, token_ids: Sequence[int]) -> JsonObject:
        """Return the event with the reason that the answer ended."""
        return self._chunk({}, last.finish_reason, self._extras(last, token_ids))

    def accounts(self, last: Output) -> JsonObject:
        """Return the event that closes a stream with the counts and timings."""
        return {**self._envelope("chat.completion.chunk", []), **self._accounts(last)}

    def whole(self, outputs: Sequence[Output], token_ids: Sequence[int]) -> JsonObject:
        """Return a whole answer."""
        last = outputs[-1]
        choice: JsonObject = {
            "index": 0,
            "message": {"role": "assistant", "content": "".join(output.text for output in outputs)},
            "finish_reason": last.finish_reason,
            **self._extras(last, token_ids),
        }
        if self.request.logprobs:
            choice["logprobs"] = self._logprobs([one for output in outputs for one in output.logprobs])
        return {**self._envelope("chat.completion", [choice]), **self._accounts(last)}

    def _accounts(self, last: Output) -> JsonObject:
        """Return the counts and timings; of a deterministic answer only the counts that are the same each time."""
        if last.usage is None:
            return {}
        usage = _usage(last.usage)
        if self.request.deterministic:
            return {"usage": replace(usage, extra={}).to_json()}
        return {"usage": usage.to_json(), "timings": _timings(last.usage).to_json()}

    def _extras(self, last: Output, token_ids: Sequence[int]) -> JsonObject:
        extras: JsonObject = {}
        if last.label_probs:
            asked = self.request.structured_outputs
            assert asked is not None
            extras["label_probs"] = dict(zip(asked.choice or (), last.label_probs, strict=True))
        if self.request.return_token_ids:
            extras["token_ids"] = list(token_ids)
        return extras

    def _chunk(
        self, delta: dict[str, str], finish_reason: str | None = None, extra: JsonObject | None = None
    ) -> JsonObject:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, **(extra or {})}
        return self._envelope("chat.completion.chunk", [choice])

    def _logprobs(self, chosen: Sequence[TokenLogprobs]) -> JsonObject:
        return {
            "content": [
                {
                    **self._logprob(one.token, one.logprob),
                    "top_logprobs": [self._logprob(token, logprob) for token, logprob in one.top],
                }
                for one in chosen
            ]
        }

    def _logprob(self, token: int, logprob: float) -> JsonObject:
        (piece,) = self.pieces([token])
        return {"token": piece.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(piece)}

    def _envelope(self, kind: str, choices: list[JsonObject]) -> JsonObject:
        envelope = {
            "id": self.id,
            "object": kind,
            "created": 0 if self.request.deterministic else int(time.time()),
            "model": self.model,
            "choices": choices,
        }
        return {**envelope, "dropped_messages": self.n_dropped} if self.n_dropped else envelope


def _usage(cost: Usage) -> TokenUsage:
    """Return the counts as OpenAI does."""
    details = {"prompt_tokens_details": {"cached_tokens": cost.n_cached}}
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
