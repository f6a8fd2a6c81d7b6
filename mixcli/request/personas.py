"""Personas: system messages with settings, stored as files in the configuration folder.

`personas/support.md` is a system message as it stands; `personas/support.toml` has `system` and may have a table `[settings]` with
what `/set` knows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.request.settings import ChatSettings, Value
from mixcli.system import paths
from mixcli.system.stdin import read_text
from mixcli.system.text import did_you_mean


@dataclass(frozen=True)
class Persona:
    """A system message and the settings that go with it."""

    system: str
    settings: Mapping[str, Value] = field(default_factory=dict)


def folder() -> Path:
    """Return the folder of personas; it need not exist."""
    return paths.config_dir() / "personas"


def names() -> list[str]:
    """List the personas by name."""
    return sorted({path.stem for path in folder().glob("*") if path.suffix in READERS and path.is_file()})


def persona(name: str) -> Persona:
    """Read a persona; UsageError with what is wrong, or with the names of all."""
    for suffix, read in READERS.items():
        path = folder() / f"{name}{suffix}"
        if path.is_file() and path.parent == folder():
            text = read_text(path)
            try:
                return read(text)
            except (UsageError, ValueError) as error:
                raise UsageError(f"persona {path}: {error}") from None
    have = names()
    hint = did_you_mean(name, have, f"personas are: {', '.join(have)}" if have else "none are defined")
    raise UsageError(f"persona {name!r} not found; {hint} (each is a file such as {folder() / 'support.md'})")


def _markdown(text: str) -> Persona:
    return Persona(text.strip())


def _toml(text: str) -> Persona:
    import tomllib

    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a date or a number that cannot be
        raise UsageError(f"it is not TOML: {error}") from None
    system = data.pop("system", None)
    chosen = data.pop("settings", {})
    if not isinstance(system, str) or not isinstance(chosen, dict) or data:
        raise UsageError("only a string `system` and a table [settings] are allowed")
    settings = ChatSettings()
    for key, value in chosen.items():
        typed = ("on" if value else "off") if isinstance(value, bool) else str(value)
        settings = settings.with_text(key, typed)
    return Persona(system.strip(), settings.chosen())


READERS: dict[str, Callable[[str], Persona]] = {".md": _markdown, ".toml": _toml}
