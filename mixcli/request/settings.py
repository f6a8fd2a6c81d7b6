"""The settings of `/set`: one table, and the values chosen in a conversation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mixcli.errors import UsageError
from mixcli.request.sampling_table import CHAT_TEMPERATURE, MAX_STOP_LENGTH, RANGES, texts_fault
from mixcli.system.text import did_you_mean

DROP_OLDEST, ERROR = "drop-oldest", "error"
Value = float | str | Sequence[str]  # of a setting: also a bool or a whole number


def _number(name: str, default: float | None = None) -> "Setting":
    """Return the setting of a sampling parameter, from the table of all of them."""
    row = RANGES[name]
    return Setting(row.help, row.text, row.read, name, default)


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
    read: Callable[[str], Value]
    wire: str | None = None
    default: Value | None = None


TABLE: dict[str, Setting] = {
    "temperature": _number("temperature", CHAT_TEMPERATURE),
    **{
        name: _number(name)
        for name in ("top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "seed", "max_tokens")
    },
    "stop": Setting("end the answer before this text", f"text of at most {MAX_STOP_LENGTH:,} characters", _stops, "stop"),
    "overflow": Setting(
        "what to do when the context is full", f"{DROP_OLDEST} or {ERROR}", _one_of(DROP_OLDEST, ERROR), "on_overflow", DROP_OLDEST
    ),
    "speculate": Setting("prompt lookup: draft tokens from earlier text; faster on a GPU where text repeats, same answer; off on a CPU", "on or off", _switch, "speculate"),
    "markdown": Setting("render headings, lists, code and tables", "on or off", _switch, None, True),
    "keys": Setting("key bindings of the editor", "emacs or vi", _one_of("emacs", "vi"), None, "emacs"),
}  # fmt: skip


@dataclass(frozen=True)
class ChatSettings:
    """The values that were chosen; everything else is at its default."""

    values: Mapping[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Value]) -> "ChatSettings":
        """Take stored values; those that this version does not know, or no longer accepts, are left out."""
        return cls({name: value for name, value in values.items() if name in TABLE and _holds(name, value)})

    def with_text(self, name: str, text: str) -> "ChatSettings":
        """Choose a value as it is typed, or `default`; UsageError says what can be chosen."""
        setting = TABLE.get(name)
        if setting is None:
            raise UsageError(f"setting {name} not found; {did_you_mean(name, TABLE, '/set lists them')}")
        others = {key: value for key, value in self.values.items() if key != name}
        if text == "default":
            return ChatSettings(others)
        try:
            return ChatSettings({**others, name: setting.read(text)})
        except (ValueError, KeyError, OverflowError):
            raise UsageError(f"invalid {name} {text!r:.60}: use {setting.values}, or default") from None

    def with_values(self, values: Mapping[str, Value]) -> "ChatSettings":
        """Choose several values that were checked already."""
        return ChatSettings.of({**self.values, **values})

    def get(self, name: str) -> Value | None:
        """Return the chosen value, else the default."""
        return self.values.get(name, TABLE[name].default)

    def chosen(self) -> dict[str, Value]:
        """Return the chosen values, for storage."""
        return dict(self.values)

    def body(self, *, with_defaults: bool = True) -> dict[str, Value]:
        """Return the fields of a chat completion request; a server other than a host has its own defaults."""
        get = self.get if with_defaults else self.values.get
        return {
            setting.wire: value
            for name, setting in TABLE.items()
            if setting.wire and (value := get(name)) is not None
        }

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, value and meaning of everything that can be set."""
        return [
            (name, _shown(self.get(name)), f"{one.meaning} ({one.values})") for name, one in TABLE.items()
        ]


def _holds(name: str, value: Value | None) -> bool:
    return name not in RANGES or RANGES[name].allows(value)


def _shown(value: Value | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "on" if value else "off"
    return " ".join(map(repr, value)) if isinstance(value, list | tuple) else str(value)
