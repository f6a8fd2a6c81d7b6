"""Profile names as people type them: 3090, rtx4090, 2x3090, m3-max."""

import re
from collections.abc import Collection, Iterable

APPLE = "apple-m-series"
_APPLE = re.compile(r"(apple)?(m\d|mac|macbook|macmini|macstudio|metal|silicon)(air|pro|max|ultra)?")
_MAKERS = re.compile(r"nvidia|geforce|rtx|gtx")
_PAIRS = (
    (re.compile(r"(?:dual|two)(\d{4}.*)"), r"2x\1"),
    (re.compile(r"(\d{4}.*)x2"), r"2x\1"),
    (re.compile(r"1x(\d{4}.*)"), r"\1"),
)
_OTHERS = {
    "laptop": "laptop-8gb-gpu",
    "laptop8gb": "laptop-8gb-gpu",
    "4060laptop": "laptop-8gb-gpu",
    "laptop4060": "laptop-8gb-gpu",
    "avx2": "cpu-avx2-32gb",
    "avx512": "cpu-avx512-64gb",
}
_VARIANT = re.compile(r"laptop|mobile|max-?q|(?<=\d)[ _-]?(?:ti|super)\b", re.IGNORECASE)


def alias(typed: str, names: Collection[str]) -> str | None:
    """Return the profile that a name stands for; None for one that could mean another machine.

    Case, punctuation, the maker's words and a memory size at the end do not matter. Any Apple M computer stands for APPLE.
    """
    wanted = _core(typed)
    if wanted in _OTHERS:
        found = [_OTHERS[wanted]]
    elif is_apple(typed):
        found = [APPLE]
    else:
        pattern = re.compile(re.escape(wanted) + r"(\d+gb)?")
        found = [name for name in names if wanted and pattern.fullmatch(_core(name))]
    return found[0] if len(found) == 1 and found[0] in names else None


def is_apple(typed: str) -> bool:
    """Return whether a name means some computer with an Apple M processor."""
    return _APPLE.fullmatch(_core(typed)) is not None


def like(typed: str, names: Iterable[str]) -> list[str]:
    """Return the profiles that a typing error could mean: those with the same numbers, so never another card or size of memory.

    A number of three digits may lack its last one: no card has such a number.
    """
    numbers, core = set(re.findall(r"\d+", typed)), _core(typed)
    variant = _variant(typed)
    return [
        name
        for name in names
        if (
            numbers in (set(re.findall(r"\d+", name)), set(re.findall(r"\d+(?!\d|gb)", name)))
            and (_variant(name) == variant or not numbers)
        )
        or (re.fullmatch(r"(\dx)?\d{3}", core) and _core(name)[:-1] == core)
    ]


def _variant(name: str) -> set[str]:
    return {word.strip(" _-").lower() for word in _VARIANT.findall(name)}


def _core(name: str) -> str:
    core = _MAKERS.sub("", re.sub(r"[^a-z0-9]", "", name.lower()))
    for pattern, instead in _PAIRS:
        if pattern.fullmatch(core):
            return pattern.sub(instead, core)
    return core


__all__ = ["APPLE", "alias", "is_apple", "like"]
