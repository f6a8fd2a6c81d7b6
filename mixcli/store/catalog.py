"""The catalog of models known by name, from catalog.toml."""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mixcli.errors import UsageError
from mixcli.store.licenses import license_of
from mixcli.system.text import did_you_mean, nearest


@dataclass(frozen=True)
class CatalogEntry:
    """One model of the catalog; `builder` is how it is installed: "demo" is made on this machine, "hub" comes from the Hub.

    `gguf` and `safetensors` are repositories, empty where there is none. `parameters` and `active` (per token) are in billions,
    `context` in tokens. `types` names what can be made; empty where the repository decides. `images`: the model sees images, of which mixcli
    runs the part that writes text. `reasoning`: it always thinks before it answers. Models of one `vocabulary` have the same tokens but for control tokens and markers; "" is not known.
    """

    name: str
    description: str
    builder: str
    license: str
    parameters: float
    active: float
    context: int
    prompt: str
    kind: str
    alignment: str
    gguf: str = ""
    safetensors: str = ""
    origin: str = ""
    default_type: str = "Q4_K_M"
    types: tuple[str, ...] = ()
    images: bool = False
    reasoning: bool = False
    vocabulary: str = ""

    @property
    def license_words(self) -> str:
        """Return what the license allows and asks."""
        return license_of(self.license).words


@cache
def catalog() -> dict[str, CatalogEntry]:
    """Return every entry by name, in the file's order."""
    tables = tomllib.loads(files("mixcli.store").joinpath("catalog.toml").read_text("utf-8"))
    return {
        name: CatalogEntry(name=name, **{**table, "types": tuple(table.get("types", ()))})
        for name, table in tables.items()
    }


def entry(name: str) -> CatalogEntry:
    """Return the entry of a name; UsageError with the nearest name when there is none."""
    known = catalog()
    if name not in known:
        otherwise = "`mixcli search` lists the known names; use org/repo for a repository, or a path for a folder or file"
        raise UsageError(f"model {name!r} not found; {did_you_mean(name, known, otherwise)}")
    return known[name]


def file_type(of: CatalogEntry, asked: str | None) -> str:
    """Return the file type to make: the one asked for, or the entry's default; UsageError for one it does not have."""
    if asked is not None and of.types and asked not in of.types:
        near = nearest(asked, of.types)
        hint = f"; did you mean {near}?" if near else ""
        raise UsageError(f"{of.name} has no quant {asked!r}; use {', '.join(of.types)}{hint}")
    return asked or of.default_type
