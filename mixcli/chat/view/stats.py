"""Statistics of an answer: token counts, prefill and decode speed, time to first token."""

from dataclasses import dataclass

from mixcli.host.protocol.messages import Delta, Timings, TokenUsage
from mixcli.system.formatting import counted


@dataclass(frozen=True)
class TurnStats:
    """Counts are tokens, `seconds_to_first` is from the request to the first text, rates are tokens per second.

    An answer that was stopped has no counts of the server: its `n_prompt` is 0, its `n_generated` and `decode_rate` are what was seen until then.
    """

    n_prompt: int = 0
    n_cached: int = 0
    n_generated: int = 0
    n_draft: int = 0
    n_draft_accepted: int = 0
    seconds_to_first: float = 0.0
    prefill_rate: float = 0.0
    decode_rate: float = 0.0
    finish_reason: str = ""

    @property
    def n_in_context(self) -> int:
        """Count the tokens of prompt and answer; 0 where they are not known."""
        return self.n_prompt and self.n_prompt + self.n_generated

    @classmethod
    def of(cls, last: Delta, seconds_to_first: float, finish_reason: str) -> "TurnStats":
        """Read the delta that carries the counts and timings of an answer."""
        usage, timings = last.usage or TokenUsage(), last.timings or Timings()
        return cls(
            usage.prompt_tokens or 0,
            usage.cached_tokens,
            usage.completion_tokens or 0,
            timings.draft_n or 0,
            timings.draft_n_accepted or 0,
            seconds_to_first,
            timings.prompt_per_second or 0.0,
            timings.predicted_per_second or 0.0,
            finish_reason,
        )

    def rows(self, n_ctx: int, estimated_decode: float | None) -> list[tuple[str, str]]:
        """Return the lines of /stats; `estimated_decode` is the plan's roofline estimate, tokens per second."""
        read = self.n_prompt - self.n_cached
        first = ("time to first token", f"{self.seconds_to_first:.2f} s")
        if not self.n_prompt:
            rate = f" at {self.decode_rate:.1f} tok/s" if self.decode_rate else ""
            return [first, ("decode", f"about {counted(self.n_generated, 'token')}{rate} until it stopped")]
        rows = [
            first,
            ("prompt", f"{counted(self.n_prompt, 'token')}, {self.n_cached:,} of them cached ({_share(self.n_cached, self.n_prompt)})"),
            ("prefill", f"{counted(read, 'token')} at {self.prefill_rate:.1f} tok/s"),
            ("decode", f"{counted(self.n_generated, 'token')} at {self.decode_rate:.1f} tok/s"),
        ]  # fmt: skip
        if estimated_decode:
            rows.append(
                ("estimate", f"{_share(self.decode_rate, estimated_decode)} of the plan's {estimated_decode:.1f} tok/s")
            )  # fmt: skip
        if self.n_draft:
            rows.append(("drafts", f"{self.n_draft_accepted} of {self.n_draft} draft tokens accepted"))
        if n_ctx:
            rows.append(
                ("context", f"{self.n_in_context:,} of {n_ctx:,} tokens ({_share(self.n_in_context, n_ctx)})")
            )
        return rows


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"
