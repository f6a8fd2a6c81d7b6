"""The one table of sampling parameters and their ranges, for the command line, `/set`, the HTTP API and the engine.

Standard library only: the command line reads it for its help.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

MAX_TOKENS = 1 << 24
MAX_STOPS, MAX_STOP_LENGTH, MAX_BREAKER_LENGTH = 16, 1000, 40  # texts, characters of each
MAX_SHOWN = 40  # digits of a number that are repeated in a message


@dataclass(frozen=True)
class Range:
    """The values of one parameter: `least` (itself excluded where it is `above`) to `greatest`; `whole` numbers only, or any; `words` where the range reads badly."""

    least: float
    greatest: float
    whole: bool = False
    above: bool = False
    words: str = ""

    def allows(self, value: object) -> bool:
        """Return whether a value of the right type lies in the range; a bool, NaN and an infinity never do."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.least <= value <= self.greatest and not (self.above and value == self.least)

    @property
    def text(self) -> str:
        """Return the range in words, as `0 to 1` or `above 0 to 1`."""
        if self.words:
            return self.words
        write = "{:,}" if self.whole else "{:g}"
        return f"{'above ' if self.above else ''}{write.format(self.least)} to {write.format(self.greatest)}"

    def read(self, text: str) -> int | float:
        """Return the number that a text spells; ValueError where it spells none, or one out of range."""
        if len(text) > 2 * MAX_SHOWN:
            raise ValueError("too long for a number")
        value: int | float = int(text) if self.whole else float(text)
        if not self.allows(value):
            raise ValueError(f"{text} is not {self.text}")
        return value

    def fault(self, name: str, value: object) -> str | None:
        """Return the sentence that refuses a value; None where it is allowed."""
        if self.allows(value):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"{name} must be a {'whole ' * self.whole}number, not {shown(value)}"
        if self.whole and isinstance(value, float):
            return f"{name} must be a whole number, not {shown(value)}"
        return f"{name} is {shown(value)}; it must be {self.text}"


RANGES: dict[str, Range] = {
    "max_tokens": Range(1, MAX_TOKENS, whole=True),
    "temperature": Range(0, 10),
    "top_k": Range(0, 1 << 30, whole=True),
    "top_p": Range(0, 1),
    "min_p": Range(0, 1),
    "typical_p": Range(0, 1, above=True),
    "top_n_sigma": Range(-1, 100),
    "xtc_probability": Range(0, 1),
    "xtc_threshold": Range(0, 1),
    "repeat_penalty": Range(0.01, 10),
    "repeat_last_n": Range(-1, 1 << 20, whole=True),
    "frequency_penalty": Range(-2, 2),
    "presence_penalty": Range(-2, 2),
    "dry_multiplier": Range(0, 100),
    "dry_base": Range(1, 100),
    "dry_allowed_length": Range(1, 1 << 20, whole=True),
    "dry_penalty_last_n": Range(-1, 1 << 20, whole=True),
    "dynatemp_range": Range(0, 10),
    "dynatemp_exponent": Range(0, 10),
    "mirostat": Range(0, 2, whole=True),
    "mirostat_tau": Range(0, 100),
    "mirostat_eta": Range(0, 1),
    "seed": Range(-(1 << 63), (1 << 64) - 1, whole=True, words="a whole number of 64 bits"),
}
OPTIONAL = frozenset({"max_tokens", "seed"})  # None is a value of these


def texts_fault(name: str, texts: Sequence[object], length: int = MAX_STOP_LENGTH) -> str | None:
    """Return the sentence that refuses a list of stop texts or breakers; None where it is allowed."""
    if not all(isinstance(text, str) for text in texts):
        return f"{name} must be a list of strings"
    if len(texts) > MAX_STOPS:
        return f"{name} has {len(texts):,} strings; the limit is {MAX_STOPS}"
    for text in map(str, texts):
        if not 0 < len(text) <= length:
            return f"each string in {name} must have 1 to {length:,} characters, not {len(text):,}"
        if any("\ud800" <= one <= "\udfff" for one in text):
            return f"a string in {name} contains a lone surrogate"
    return None


def shown(value: object) -> str:
    """Return a value for a message, as JSON has it; a very long number by its length, which Python refuses to spell."""
    if isinstance(value, int) and value.bit_length() > 4 * MAX_SHOWN:
        return f"a whole number of about {math.ceil(value.bit_length() * math.log10(2)):,} digits"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    try:
        return f"{json.dumps(value, ensure_ascii=False, default=repr):.40}"
    except (RecursionError, ValueError):  # too deep, or a number in it that is too long
        return "a value that is too large to show"


__all__ = [
    "MAX_BREAKER_LENGTH",
    "MAX_STOPS",
    "MAX_STOP_LENGTH",
    "MAX_TOKENS",
    "OPTIONAL",
    "RANGES",
    "Range",
    "shown",
    "texts_fault",
]
