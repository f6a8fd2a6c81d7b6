"""Request one answer, stream it to stdout, and report its token counts and speed."""

import contextlib
from dataclasses import asdict, dataclass, field
from http.client import HTTPException
from typing import Any, Protocol

from mixcli.client.openai import ChatClient, Delta, HostClient
from mixcli.errors import MixcliError, ModelDied, Unresponsive
from mixcli.system.console import console
from mixcli.system.formatting import counted

TIMES = {
    "cache_n",
    "prompt_per_second",
    "predicted_per_second",
}  # the timings that `statistics` needs
INTERRUPTED = "interrupted"  # the finish_reason of an answer that the user stopped


class ChatBackend(Protocol):
    """The backend of an answer: a host of this machine, or another server."""

    @property
    def client(self) -> ChatClient: ...
    def cause_of_death(self) -> str: ...


@dataclass(frozen=True)
class Answer:
    """A finished answer; `usage` counts tokens as OpenAI does, `timings` are llama-server's (milliseconds, tokens per second).

    `label_probs` are there where one of several labels was asked for. Servers that do not tell leave these empty.
    """

    text: str
    finish_reason: str
    usage: dict[str, Any]
    timings: dict[str, Any]
    label_probs: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it for --json."""
        return asdict(self)

    def statistics(self) -> str:
        """Return one line for a person."""
        n_prompt, n_answer = (self.usage.get(name, "?") for name in ("prompt_tokens", "completion_tokens"))
        if not all(isinstance(self.timings.get(name), int | float) for name in TIMES):
            return f"prompt {counted(n_prompt, 'token')}, answer {counted(n_answer, 'token')}, ended by {self.finish_reason}"
        at = self.timings
        return (
            f"prompt {counted(n_prompt, 'token')} ({at['cache_n']} cached) at {at['prompt_per_second']:.1f} tok/s, "
            f"answer {counted(n_answer, 'token')} at {at['predicted_per_second']:.1f} tok/s, ended by {self.finish_reason}"
        )


def ask(
    host: ChatBackend, body: dict[str, Any], *, show: bool = True, keep_interrupted: bool = False
) -> Answer:
    """Ask the host and write the answer to stdout while it comes; `show` off keeps it for the caller.

    An interrupt (KeyboardInterrupt) closes the connection, which stops the model, and is raised, or with `keep_interrupted` becomes the
    finish_reason of what had come. Raises what the host reports; ModelDied says how it died.
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
    except KeyboardInterrupt:
        if not keep_interrupted:
            raise
        reason = INTERRUPTED
    except ModelDied as error:
        if show and deltas:
            console.write("\n")
        if isinstance(error, Unresponsive):
            raise
        raise ModelDied(
            f"the model process ended during the answer ({host.cause_of_death()}); run the same command again"
        ) from error
    except MixcliError:
        if show and any(delta.text for delta in deltas):
            console.write("\n")
        raise
    text = "".join(delta.text for delta in deltas)
    if show and not text.endswith("\n"):
        console.write("\n")
    usage = next((delta.usage for delta in reversed(deltas) if delta.usage), {})
    timings = next((delta.timings for delta in reversed(deltas) if delta.timings), {})
    label_probs = next((delta.label_probs for delta in reversed(deltas) if delta.label_probs), {})
    answer = Answer(text, reason, usage, timings, label_probs)
    if reason == "length" and answer.usage.get("completion_tokens") != body.get("max_tokens"):
        _note_full(host)
    return answer


def _note_full(host: ChatBackend) -> None:
    """Note that an answer ends where the context does; what limits another server's answers is not known."""
    if isinstance(host.client, HostClient):
        with contextlib.suppress(OSError, ValueError, HTTPException, MixcliError):
            n_ctx = host.client.health()["n_ctx"]
            console.note(f"answer truncated: the context of {n_ctx:,} tokens is full; pass a larger --ctx")
