"""OpenAI's text completion answers: whole ones and the events of a stream, with log-probabilities in the older form."""

import time
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field

from mixcli.engine.logprobs import TokenLogprobs
from mixcli.engine.sequence import Output
from mixcli.host.api.completion_schema import Completion
from mixcli.host.api.events import DONE, JsonObject, event_bytes
from mixcli.host.call import Call
from mixcli.host.protocol.errors import error_body
from mixcli.host.protocol.messages import TokenUsage

_Decoder = getincrementaldecoder("utf-8")


@dataclass(frozen=True)
class PromptEcho:
    """What comes back of one prompt: its text, how many tokens it has, and their log-probabilities where they are wanted."""

    text: str = ""
    n_tokens: int = 0
    tokens: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprobs | None, ...] = ()


@dataclass
class CompletionResponseWriter:
    """Writes what calls bring as OpenAI's text completions (an AnswerWriter); `pieces` returns the bytes of tokens.

    `echoes` has one entry for each prompt; the answers of a prompt stand together in the order of `calls`.
    """

    id: str
    model: str
    completion: Completion
    pieces: Callable[[Sequence[int]], list[bytes]]
    echoes: Sequence[PromptEcho] = ()
    end: bytes = DONE
    named_events: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    # characters of each answer that were sent, and what decodes the next ones
    _written: dict[int, tuple[int, IncrementalDecoder]] = field(default_factory=dict)

    @property
    def shows_progress(self) -> bool:
        return False

    def opening(self, calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the prompts, where they are to come back."""
        if self.completion.request.echo:
            for call in calls:
                echo = self._echo(call.index)
                yield self._event(
                    call.index, echo.text, self._logprobs(call.index, echo.tokens, echo.logprobs)
                )

    def progress(self, call: Call, output: Output) -> Iterator[JsonObject]:  # noqa: ARG002  # the protocol's names
        """Return nothing: OpenAI's streams have no progress."""
        return iter(())

    def delta(self, call: Call, output: Output) -> Iterator[JsonObject]:
        """Return one event with text."""
        yield self._event(call.index, output.text, self._logprobs_of(call.index, output.logprobs))

    def closing(self, call: Call, last: Output) -> Iterator[JsonObject]:
        """Return the event with the reason that the answer ended."""
        yield self._event(call.index, "", None, last.finish_reason, call.token_ids, last.label_probs)

    def accounts(self, calls: Sequence[Call]) -> Iterator[JsonObject]:
        """Return the event that closes a stream with the counts."""
        if self.completion.chat.stream_options.include_usage:
            yield {**self._envelope([]), "usage": self._usage(calls)}

    def failure(self, error: Exception) -> Iterator[JsonObject]:
        """Return the error as the last event of a stream."""
        yield error_body(error)[1].to_json()

    def whole(self, calls: Sequence[Call]) -> JsonObject:
        """Return a whole answer."""
        choices = [self._choice(call) for call in calls]
        return {**self._envelope(choices), "usage": self._usage(calls)}

    def alone(self) -> JsonObject:
        """Return the answer without a token: the prompts, where they are to come back, and their counts."""
        return {**self._envelope(list(self._alone())), "usage": self._usage([])}

    async def alone_streamed(self) -> AsyncGenerator[bytes, None]:
        """Yield the events of such an answer, in one piece."""
        events = [*map(self._event_of, self._alone()), *self.accounts([])]
        yield event_bytes(events) + self.end

    def _alone(self) -> Iterator[JsonObject]:
        for i in range(len(self.echoes) * self.completion.request.n):
            yield self._as_choice(i, self._echo(i).text, self._echo_logprobs(i), "length", [])

    def _choice(self, call: Call) -> JsonObject:
        text, logprobs = call.text, None
        if self.completion.request.echo:
            text = self._echo(call.index).text + text
            logprobs = self._echo_logprobs(call.index)
        said = [one for output in call.outputs for one in output.logprobs]
        answered = self._logprobs_of(call.index, said)
        if logprobs is not None and answered is not None:
            answered = {name: [*logprobs[name], *answered[name]] for name in answered}  # type: ignore[misc]
        last = call.outputs[-1]
        return self._as_choice(
            call.index, text, answered, last.finish_reason, call.token_ids, last.label_probs
        )

    def _echo(self, index: int) -> PromptEcho:
        return self.echoes[index // self.completion.request.n] if self.echoes else PromptEcho()

    def _echo_logprobs(self, index: int) -> JsonObject | None:
        echo = self._echo(index)
        return self._logprobs(index, echo.tokens, echo.logprobs)

    def _logprobs_of(self, index: int, chosen: Sequence[TokenLogprobs]) -> JsonObject | None:
        return self._logprobs(index, [one.token for one in chosen], chosen)

    def _logprobs(
        self, index: int, tokens: Sequence[int], chosen: Sequence[TokenLogprobs | None]
    ) -> JsonObject | None:
        """Return log-probabilities in OpenAI's older form; offsets are characters from the beginning of the answer."""
        if self.completion.request.logprobs is None:
            return None
        at, decoder = self._written.get(index, (0, _Decoder("replace")))
        names, offsets = [], []
        for piece in self.pieces(tokens):
            names.append(_name(piece))
            offsets.append(at)
            at += len(decoder.decode(piece))  # a character may be of several tokens
        self._written[index] = at, decoder
        return {
            "tokens": names,
            "token_logprobs": [None if one is None else one.logprob for one in chosen],
            "top_logprobs": [None if one is None else self._top(one) for one in chosen],
            "text_offset": offsets,
        }

    def _top(self, one: TokenLogprobs) -> JsonObject:
        """Return the most likely tokens, and the chosen one, by name."""
        likely = dict([*one.top, (one.token, one.logprob)])
        names = (_name(piece) for piece in self.pieces(list(likely)))
        return dict(zip(names, likely.values(), strict=True))

    def _event(
        self,
        index: int,
        text: str,
        logprobs: JsonObject | None,
        finish_reason: str | None = None,
        token_ids: Sequence[int] | None = None,
        label_probs: Sequence[float] = (),
    ) -> JsonObject:
        return self._event_of(self._as_choice(index, text, logprobs, finish_reason, token_ids, label_probs))

    def _event_of(self, choice: JsonObject) -> JsonObject:
        """Return an event; where counts were asked for, each has the field, as OpenAI does."""
        counts: JsonObject = {"usage": None} if self.completion.chat.stream_options.include_usage else {}
        return {**self._envelope([choice]), **counts}

    def _as_choice(
        self,
        index: int,
        text: str,
        logprobs: JsonObject | None,
        finish_reason: str | None,
        token_ids: Sequence[int] | None,
        label_probs: Sequence[float] = (),
    ) -> JsonObject:
        choice: JsonObject = {
            "text": text,
            "index": index,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        asked = self.completion.chat.structured_outputs
        if label_probs and asked is not None:
            choice["label_probs"] = dict(zip(asked.choice or (), label_probs, strict=True))
        if self.completion.chat.return_token_ids and token_ids is not None:
            return {**choice, "token_ids": list(token_ids)}
        return choice

    def _usage(self, calls: Sequence[Call]) -> JsonObject:
        costs = [call.outputs[-1].usage for call in calls if call.outputs]
        n = self.completion.request.n
        n_prompt = sum(cost.n_prompt for cost in costs[::n] if cost) or sum(e.n_tokens for e in self.echoes)
        n_generated = sum(cost.n_generated for cost in costs if cost)
        n_cached = sum(cost.n_cached for cost in costs[::n] if cost)
        details = {"prompt_tokens_details": {"cached_tokens": n_cached}}
        return TokenUsage(n_prompt, n_generated, n_prompt + n_generated, details).to_json()

    def _envelope(self, choices: list[JsonObject]) -> JsonObject:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": 0 if self.completion.chat.deterministic else self.created,
            "model": self.model,
            "choices": choices,
        }


def _name(piece: bytes) -> str:
    """Return a token as text; the bytes of a part of a character in OpenAI's notation."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
