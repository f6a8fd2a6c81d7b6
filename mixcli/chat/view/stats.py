"""Statistics of an answer: token counts, prefill and decode speed, time to first token."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixcli.system.formatting import counted

if TYPE_CHECKING:
    from mixcli.client.openai import Delta


@dataclass(frozen=True)
class TurnStats:
    """Counts are tokens, `seconds_to_first` is from the request to the first text, rates are tokens per second."""

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
        return self.n_prompt + self.n_generated

    @classmethod
    def of(cls, last: "Delta", seconds_to_first: float, finish_reason: str) -> "TurnStats":
        """Read the delta that carries the accounts of an answer."""
        usage, timings = last.usage, last.timings
        return cls(
            usage.get("prompt_tokens", 0),
            (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            usage.get("completion_tokens", 0),
            timings.get("draft_n", 0) or 0,
            timings.get("draft_n_accepted", 0) or 0,
            seconds_to_first,
            timings.get("prompt_per_second", 0.0) or 0.0,
            timings.get("predicted_per_second", 0.0) or 0.0,
            finish_reason,
        )

    def rows(self, n_ctx: int, estimated_decode: float | None) -> list[tuple[str, str]]:
        """Return the lines of /stats; `estimated_decode` is the plan's roofline estimate, tokens per second."""
        read = self.n_prompt - self.n_cached
        rows = [
            ("time to first token", f"{self.seconds_to_first:.2f} s"),
            ("prompt", f"{counted(self.n_prompt, 'token')}, {self.n_cached:,} of them cached ({_share(self.n_cached, self.n_prompt)})"),
            ("prefill", f"{counted(read, 'token')} at {self.prefill_rate:.1f} tok/s"),
            ("decode", f"{counted(self.n_generated, 'token')} at {self.decode_rate:.1f} tok/s"),
        ]  # fmt: skip
        if estimated_decode:
            rows.append(
                ("roofline", f"{_share(self.decode_rate, estimated_decode)} of the estimated {estimated_decode:.1f} tok/s")
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
