"""One answer, streamed to stdout as it comes, and what it cost."""

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

from mixcli.console import console
from mixcli.errors import ModelDied
from mixcli.host.client import Delta
from mixcli.host.process import Host

INTERRUPTED = "interrupted"  # the finish_reason of an answer that the user stopped


@dataclass(frozen=True)
class Answer:
    """A finished answer; `usage` counts tokens as OpenAI does, `timings` are llama-server's (milliseconds, tokens a second)."""

    text: str
    finish_reason: str
    usage: dict[str, Any]
    timings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Give all of it for --json."""
        return asdict(self)

    def statistics(self) -> str:
        """Give one line for a person."""
        at = self.timings
        return (
            f"prompt {self.usage['prompt_tokens']} tokens ({at['cache_n']} known already) at {at['prompt_per_second']:.1f}/s, "
            f"answer {self.usage['completion_tokens']} tokens at {at['predicted_per_second']:.1f}/s, ended by {self.finish_reason}"
        )


def ask(host: Host, body: dict[str, Any], *, show: bool = True, keep_interrupted: bool = False) -> Answer:
    """Ask the host and write the answer to stdout while it comes; `show` off keeps it for the caller.

    An interrupt (KeyboardInterrupt) hangs up, which stops the model, and is raised, or with `keep_interrupted` becomes the
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
        raise ModelDied(
            f"the model process ended while it answered ({host.cause_of_death()}); run the same command again"
        ) from error
    text = "".join(delta.text for delta in deltas)
    if show and not text.endswith("\n"):
        console.write("\n")
    usage = next((delta.usage for delta in reversed(deltas) if delta.usage), {})
    timings = next((delta.timings for delta in reversed(deltas) if delta.timings), {})
    return Answer(text, reason, usage, timings)
