"""What `/set` sets: one table, and the values that a conversation has chosen."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from mixcli.errors import UsageError

DROP_OLDEST, ERROR = "drop-oldest", "error"


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not low <= value <= high or math.isnan(value):
            raise ValueError
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError
        return value

    return read


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return {"on": True, "off": False, "true": True, "false": False}[text]


def _stops(text: str) -> list[str]:
    if not text:
        raise ValueError
    return [text.encode().decode("unicode_escape") if "\\" in text and text.isascii() else text]


@dataclass(frozen=True)
class Setting:
    """One thing that can be set: how a text is read, which field of a request it becomes (None: it stays here), what people see.

    `default` is what the chat sends where nothing was chosen; None leaves it to the model's process.
    """

    meaning: str
    values: str
    read: Callable[[str], Any]
    wire: str | None = None
    default: Any = None


MOST = 2**31 - 1
TABLE: dict[str, Setting] = {
    "temperature": Setting("0 always takes the likeliest token", "0 to 5", _number(0, 5), "temperature", 0.7),
    "top_p": Setting("choose among the tokens that make up this probability", "0 to 1", _number(0, 1), "top_p"),
    "top_k": Setting("choose among the k likeliest tokens; 0 is off", "0 or more", _whole(0, MOST), "top_k"),
    "min_p": Setting("drop tokens less likely than this share of the likeliest", "0 to 1", _number(0, 1), "min_p"),
    "typical_p": Setting("locally typical sampling; 1 is off", "0 to 1", _number(0, 1), "typical_p"),
    "repeat_penalty": Setting("above 1, make repeated tokens less likely", "0 to 10", _number(0, 10), "repeat_penalty"),
    "presence_penalty": Setting("make tokens that occurred less likely", "-2 to 2", _number(-2, 2), "presence_penalty"),
    "frequency_penalty": Setting("the more often, the less likely", "-2 to 2", _number(-2, 2), "frequency_penalty"),
    "seed": Setting("same seed, same conversation: same answer", "a whole number", _whole(0, 2**32 - 1), "seed"),
    "max_tokens": Setting("stop an answer after so many tokens", "1 or more", _whole(1, MOST), "max_tokens"),
    "stop": Setting("end the answer before this text", "a text", _stops, "stop"),
    "overflow": Setting(
        "what happens when the context is full", f"{DROP_OLDEST} or {ERROR}", _one_of(DROP_OLDEST, ERROR), "on_overflow", DROP_OLDEST
    ),
    "speculate": Setting("guess ahead from what was said already", "on or off", _switch, "speculate"),
    "markdown": Setting("draw headings, lists, code and tables", "on or off", _switch, None, True),
    "keys": Setting("how lines are edited", "emacs or vi", _one_of("emacs", "vi"), None, "emacs"),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The values that were chosen; everything else is at its default."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Settings":
        """Take stored values; those that this version does not know are left out."""
        return cls({name: value for name, value in values.items() if name in TABLE})

    def with_text(self, name: str, text: str) -> "Settings":
        """Choose a value as it is typed, or `default`; UsageError says what can be chosen."""
        setting = TABLE.get(name)
        if setting is None:
            near = get_close_matches(name, TABLE, n=1)
            raise UsageError(
                f"there is no setting {name}; {f'did you mean {near[0]}?' if near else '/set lists them'}"
            )
        others = {key: value for key, value in self.values.items() if key != name}
        if text == "default":
            return Settings(others)
        try:
            return Settings({**others, name: setting.read(text)})
        except (ValueError, KeyError, OverflowError):
            raise UsageError(f"{name} takes {setting.values}, or default; not {text!r}") from None

    def with_values(self, values: Mapping[str, Any]) -> "Settings":
        """Choose several values that were checked already."""
        return Settings.of({**self.values, **values})

    def get(self, name: str) -> Any:
        """Give what holds: what was chosen, else the default."""
        return self.values.get(name, TABLE[name].default)

    def chosen(self) -> dict[str, Any]:
        """Give what was chosen, to be kept."""
        return dict(self.values)

    def body(self) -> dict[str, Any]:
        """Give the fields of a chat completion request."""
        return {
            setting.wire: self.get(name)
            for name, setting in TABLE.items()
            if setting.wire and self.get(name) is not None
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Give name, value and meaning of everything that can be set."""
        return [
            (name, "-" if self.get(name) is None else _shown(self.get(name)), f"{one.meaning} ({one.values})")
            for name, one in TABLE.items()
        ]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(repr, value)) if isinstance(value, list | tuple) else str(value)
