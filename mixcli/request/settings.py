"""The settings of `/set`: one table, and the values chosen in a conversation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mixcli.errors import UsageError
from mixcli.request.sampling_table import MAX_STOP_LENGTH, RANGES, texts_fault
from mixcli.system.text import did_you_mean

DROP_OLDEST, ERROR = "drop-oldest", "error"


def _number(meaning: str, name: str, default: float | None = None) -> "Setting":
    """Return the setting of a sampling parameter; its range is that of the engine."""
    return Setting(meaning, RANGES[name].text, RANGES[name].read, name, default)


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError
        return text

    return read


def _switch(text: str) -> bool:
    return {"on": True, "off": False, "true": True, "false": False}[text]


def _stops(text: str) -> list[str]:
    stops = [text.encode().decode("unicode_escape") if "\\" in text and text.isascii() else text]
    if texts_fault("stop", stops):
        raise ValueError
    return stops


@dataclass(frozen=True)
class Setting:
    """One setting: how its text is parsed, its field in a request (None: local to the chat), and its description.

    `default` is what the chat sends where nothing was chosen; None leaves it to the model's process.
    """

    meaning: str
    values: str
    read: Callable[[str], Any]
    wire: str | None = None
    default: Any = None


TABLE: dict[str, Setting] = {
    "temperature": _number("randomness; 0 always takes the most likely token", "temperature", 0.7),
    "top_p": _number("sample from the most likely tokens up to this total probability; 0 takes the most likely", "top_p"),
    "top_k": _number("sample from the k most likely tokens; 0 is off", "top_k"),
    "min_p": _number("drop tokens below this fraction of the top probability", "min_p"),
    "typical_p": _number("locally typical sampling; 1 is off", "typical_p"),
    "repeat_penalty": _number("values above 1 penalize repeated tokens; 1 is off", "repeat_penalty"),
    "presence_penalty": _number("penalize tokens that occurred; 0 is off", "presence_penalty"),
    "frequency_penalty": _number("penalize tokens by how often they occurred; 0 is off", "frequency_penalty"),
    "seed": _number("random seed; the same seed and conversation give the same answer", "seed"),
    "max_tokens": _number("maximum length of an answer, in tokens", "max_tokens"),
    "stop": Setting("end the answer before this text", f"text of at most {MAX_STOP_LENGTH:,} characters", _stops, "stop"),
    "overflow": Setting(
        "what to do when the context is full", f"{DROP_OLDEST} or {ERROR}", _one_of(DROP_OLDEST, ERROR), "on_overflow", DROP_OLDEST
    ),
    "speculate": Setting("prompt lookup: draft tokens from earlier text; faster where text repeats, same answer", "on or off", _switch, "speculate"),
    "markdown": Setting("render headings, lists, code and tables", "on or off", _switch, None, True),
    "keys": Setting("key bindings of the editor", "emacs or vi", _one_of("emacs", "vi"), None, "emacs"),
}  # fmt: skip


@dataclass(frozen=True)
class ChatSettings:
    """The values that were chosen; everything else is at its default."""

    values: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ChatSettings":
        """Take stored values; those that this version does not know, or no longer accepts, are left out."""
        return cls({name: value for name, value in values.items() if name in TABLE and _holds(name, value)})

    def with_text(self, name: str, text: str) -> "ChatSettings":
        """Choose a value as it is typed, or `default`; UsageError says what can be chosen."""
        setting = TABLE.get(name)
        if setting is None:
            raise UsageError(f"no setting is called {name}; {did_you_mean(name, TABLE, '/set lists them')}")
        others = {key: value for key, value in self.values.items() if key != name}
        if text == "default":
            return ChatSettings(others)
        try:
            return ChatSettings({**others, name: setting.read(text)})
        except (ValueError, KeyError, OverflowError):
            raise UsageError(f"invalid {name} {text!r:.60}: use {setting.values}, or default") from None

    def with_values(self, values: Mapping[str, Any]) -> "ChatSettings":
        """Choose several values that were checked already."""
        return ChatSettings.of({**self.values, **values})

    def get(self, name: str) -> Any:
        """Return the chosen value, else the default."""
        return self.values.get(name, TABLE[name].default)

    def chosen(self) -> dict[str, Any]:
        """Return the chosen values, for storage."""
        return dict(self.values)

    def body(self) -> dict[str, Any]:
        """Return the fields of a chat completion request."""
        return {
            setting.wire: self.get(name)
            for name, setting in TABLE.items()
            if setting.wire and self.get(name) is not None
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and meaning of everything that can be set."""
        return [
            (name, "-" if self.get(name) is None else _shown(self.get(name)), f"{one.meaning} ({one.values})")
            for name, one in TABLE.items()
        ]


def _holds(name: str, value: Any) -> bool:
    return name not in RANGES or RANGES[name].allows(value)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(repr, value)) if isinstance(value, list | tuple) else str(value)
