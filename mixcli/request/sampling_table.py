"""The one table of sampling parameters: name, type, range and help, for the command line, `/set`, the HTTP API and the engine.

Standard library only: the command line reads it for its help.
"""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

MAX_TOKENS = (1 << 31) - 1  # what programs send for no limit
MAX_STOPS, MAX_STOP_LENGTH, MAX_BREAKER_LENGTH = 16, 1000, 40  # texts, characters of each
MAX_SHOWN = 40  # digits of a number that are repeated in a message

# Where a request has no temperature: over the API llama.cpp's, in a chat a little less, in run and batch the most likely token.
API_TEMPERATURE, CHAT_TEMPERATURE, SCRIPT_TEMPERATURE = 0.8, 0.7, 0.0


class Range(NamedTuple):
    """The values of one parameter: `least` (itself excluded where it is `above`) to `greatest`; `whole` numbers only, or any.

    `words` describe a range that is clumsy as two numbers. `help` is that of the command line and of `/set`; a parameter without it is one of the API only.
    """

    least: float
    greatest: float
    whole: bool = False
    above: bool = False
    words: str = ""
    help: str = ""

    def allows(self, value: object) -> bool:
        """Return whether a value of the right type lies in the range; a bool, NaN and an infinity never do."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        return self.least <= value <= self.greatest and not (self.above and value == self.least)

    @property
    def text(self) -> str:
        """Return the range in words, as `0 to 1` or `above 0 and at most 1`."""
        if self.words:
            return self.words
        write = "{:,}" if self.whole else "{:g}"
        least, greatest = write.format(self.least), write.format(self.greatest)
        return f"above {least} and at most {greatest}" if self.above else f"{least} to {greatest}"

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
    "max_tokens": Range(1, MAX_TOKENS, whole=True, help="maximum length of the answer, in tokens"),
    "min_tokens": Range(0, MAX_TOKENS, whole=True),
    "temperature": Range(0, 10, help="randomness; 0 always takes the most likely token"),
    "top_k": Range(0, 1 << 30, whole=True, help="sample from the k most likely tokens; 0 is off"),
    "top_p": Range(
        0, 1, help="sample from the most likely tokens up to this total probability; 0 takes the most likely"
    ),
    "min_p": Range(0, 1, help="drop tokens below this fraction of the top probability"),
    "typical_p": Range(0, 1, above=True, help="locally typical sampling; 1 is off"),
    "top_n_sigma": Range(-1, 100),
    "xtc_probability": Range(0, 1),
    "xtc_threshold": Range(0, 1),
    "repeat_penalty": Range(0.01, 10, help="penalize repeated tokens; 1 is off"),
    "repeat_last_n": Range(-1, 1 << 20, whole=True),
    "frequency_penalty": Range(-2, 2, help="penalize tokens by how often they occurred; 0 is off"),
    "presence_penalty": Range(-2, 2, help="penalize tokens that occurred; 0 is off"),
    "dry_multiplier": Range(0, 100),
    "dry_base": Range(1, 100),
    "dry_allowed_length": Range(1, 1 << 20, whole=True),
    "dry_penalty_last_n": Range(-1, 1 << 20, whole=True),
    "dynatemp_range": Range(0, 10),
    "dynatemp_exponent": Range(0, 10),
    "mirostat": Range(0, 2, whole=True),
    "mirostat_tau": Range(0, 100),
    "mirostat_eta": Range(0, 1),
    "seed": Range(
        -(1 << 63),
        (1 << 64) - 1,
        whole=True,
        words="a whole number of 64 bits",
        help="random seed; the same seed and prompt give the same answer",
    ),
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
    "API_TEMPERATURE",
    "CHAT_TEMPERATURE",
    "MAX_BREAKER_LENGTH",
    "MAX_STOPS",
    "MAX_STOP_LENGTH",
    "MAX_TOKENS",
    "OPTIONAL",
    "RANGES",
    "SCRIPT_TEMPERATURE",
    "Range",
    "shown",
    "texts_fault",
]
