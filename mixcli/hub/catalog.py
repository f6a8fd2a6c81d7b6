"""The models that mixcli knows by name, from catalog.toml, and how a person writes which one is meant."""

import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.resources import files

from mixcli.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One model of the catalog; `builder` says how it is brought in."""

    name: str
    description: str
    builder: str
    default_type: str
    types: tuple[str, ...]
    licence: str
    licence_words: str
    origin: str


@dataclass(frozen=True)
class Reference:
    """`name` or `name:TYPE` as a person writes it; the type is upper case, None when none was named."""

    name: str
    type: str | None

    @classmethod
    def parse(cls, text: str) -> "Reference":
        name, _, file_type = text.partition(":")
        if not name:
            raise UsageError(f"{text!r} names no model; write a name such as demo, or demo:Q8_0")
        return cls(name, file_type.upper() or None)

    def __str__(self) -> str:
        return f"{self.name}:{self.type}" if self.type else self.name


@cache
def catalog() -> dict[str, Entry]:
    """Give every entry by name, in the file's order."""
    tables = tomllib.loads(files("mixcli.hub").joinpath("catalog.toml").read_text("utf-8"))
    return {
        name: Entry(name=name, **{**table, "types": tuple(table["types"])}) for name, table in tables.items()
    }


def entry(name: str) -> Entry:
    """Give the entry of a name; UsageError with the nearest name when there is none."""
    known = catalog()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known names: {', '.join(known)}."
        raise UsageError(
            f"no model is called {name!r}; {hint} A folder with a checkpoint or a .gguf file can be named by its path."
        )
    return known[name]


def file_type(of: Entry, asked: str | None) -> str:
    """Give the file type to make: the one asked for, or the entry's default; UsageError for one it does not have."""
    if asked is not None and asked not in of.types:
        raise UsageError(f"{of.name} has no type {asked!r}; it can be {', '.join(of.types)}")
    return asked or of.default_type
