"""Request one answer, stream it to stdout, and report its token counts and speed."""

import contextlib
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from mixcli.client.completions import calls_of
from mixcli.client.openai import ChatClient, HostClient
from mixcli.errors import MixcliError, ModelDied, Unresponsive
from mixcli.host.protocol.messages import ChatBody, Delta, Timings, TokenUsage
from mixcli.request.prompt import FunctionCall
from mixcli.system.console import console
from mixcli.system.formatting import counted

NONE: Mapping[str, float] = {}


class ChatBackend(Protocol):
    """The backend of an answer: a host of this machine, or another server."""

    @property
    def client(self) -> ChatClient: ...
    def cause_of_death(self) -> str: ...


class Answer(NamedTuple):
    """A finished answer; `label_probs` are there where one of several labels was asked for, `calls` where it calls tools.

    Servers that do not tell leave usage, timings and probabilities empty.
    """

    text: str
    finish_reason: str
    usage: TokenUsage
    timings: Timings
    label_probs: Mapping[str, float] = NONE
    calls: tuple[FunctionCall, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return all of it for --json."""
        called = {"tool_calls": [one.to_json() for one in self.calls]} if self.calls else {}
        return {
            "text": self.text,
            **called,
            "finish_reason": self.finish_reason,
            "usage": self.usage.to_json(),
            "timings": self.timings.to_json(),
            "label_probs": dict(self.label_probs),
        }

    def statistics(self) -> str:
        """Return one line for a person."""
        used, at = self.usage, self.timings
        prompt, answer = (_tokens(n) for n in (used.prompt_tokens, used.completion_tokens))
        if at.cache_n is None or at.prompt_per_second is None or at.predicted_per_second is None:
            return f"prompt {prompt}, answer {answer}, finish reason {self.finish_reason}"
        return (
            f"prompt {prompt} ({at.cache_n} cached) at {at.prompt_per_second:.1f} tok/s, "
            f"answer {answer} at {at.predicted_per_second:.1f} tok/s, finish reason {self.finish_reason}"
        )


def _tokens(n: int | None) -> str:
    return "? tokens" if n is None else counted(n, "token")


def ask(host: ChatBackend, body: ChatBody, *, show: bool = True) -> Answer:
    """Ask the host and write the answer to stdout while it comes; `show` off keeps it for the caller.

    KeyboardInterrupt closes the connection, which stops the model. Raises what the host reports; ModelDied says how it died.
    """
    deltas: list[Delta] = []
    reason = "stop"
    try:
        with contextlib.closing(host.client.chat(body)) as stream:
            for delta in stream:
                deltas.append(delta)
                reason = delta.finish_reason or reason
                if show and delta.text:
                    console.write(delta.text)
    except ModelDied as error:
        if show and deltas:
            console.write("\n")
        if isinstance(error, Unresponsive):
            raise
        raise ModelDied(
            f"the model process crashed during the answer ({host.cause_of_death()}); rerun the command"
        ) from error
    except MixcliError:
        if show and any(delta.text for delta in deltas):
            console.write("\n")
        raise
    text = "".join(delta.text for delta in deltas)
    if show and not text.endswith("\n"):
        console.write("\n")
    usage = next((delta.usage for delta in reversed(deltas) if delta.usage), TokenUsage())
    timings = next((delta.timings for delta in reversed(deltas) if delta.timings), Timings())
    label_probs = next((delta.label_probs for delta in reversed(deltas) if delta.label_probs), NONE)
    answer = Answer(text, reason, usage, timings, label_probs, calls_of(deltas))
    if reason == "length" and answer.usage.completion_tokens != body.max_tokens:
        _note_full(host)
    return answer


def _note_full(host: ChatBackend) -> None:
    """Note that an answer ends where the context does; what limits another server's answers is not known."""
    if isinstance(host.client, HostClient):
        with contextlib.suppress(OSError, ValueError, MixcliError):
            n_ctx = host.client.health().n_ctx
            console.note(f"answer truncated: the context of {n_ctx:,} tokens is full; pass a larger --ctx")
