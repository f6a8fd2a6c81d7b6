"""Find and read profiles: the built-in ones, and the user's own, which may extend or replace them."""

import codecs
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from profiles.aliases import alias
from profiles.errors import BadProfile, UnknownProfile, shown
from profiles.profile import GpuProfile, Profile, read_profile

MAX_BYTES = 1 << 20  # of a profile
NOT_PROFILES = {"models.toml", "typical.toml"}


def profile_names(own: Path | None = None) -> dict[str, str]:
    """Return every profile's name and where it comes from ("built in" or a file); a person's own win."""
    names = dict.fromkeys(sorted(_built_in()), "built in")
    if own is not None and own.is_dir():
        names |= {path.stem: str(path) for path in sorted(own.glob("*.toml")) if path.is_file()}
    return names


def load_profile(name: str, own: Path | None = None) -> Profile:
    """Read a profile by name, looking into the folder `own` first; BadProfile for one that is not there or not right."""
    table, where = _resolve(name, own, ())
    return read_profile(name, table, where)


def card(description: str) -> GpuProfile | None:
    """Return what the built-in profiles know of a GPU with this name of its driver's; None for one that none of them has."""
    known = [gpu for name in _built_in() for gpu in load_profile(name).gpus if gpu.match in description]
    return max(known, key=lambda gpu: len(gpu.match), default=None)


def _resolve(name: str, own: Path | None, seen: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    """Read a table with all that it extends; one's own file may extend the built-in profile of the same name."""
    if name in seen and (name not in _built_in() or seen.count(name) > 1):
        raise BadProfile(f"{name}.toml: 'extends' is circular: {' -> '.join((*seen, name))}")
    text, where = _text(name, own if name not in seen else None)
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also a date or a number that cannot be
        raise BadProfile(f"{where} is not TOML: {error}") from None
    base = table.pop("extends", None)
    if base is None:
        return table, where
    if not isinstance(base, str):
        raise BadProfile(f"{where}: 'extends' is {shown(base)}; it must be the name of a profile")
    try:
        under, _ = _resolve(base, own, (*seen, name))
    except UnknownProfile as error:
        raise BadProfile(f"{where}: 'extends' names a profile that does not exist; {error}") from None
    return _merged(under, table), where


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one table over another; [host] key by key, lists of GPUs as a whole, a single GPU key by key."""
    merged = {**under, **over}
    if isinstance(under.get("host"), dict) and isinstance(over.get("host"), dict):
        merged["host"] = {**under["host"], **over["host"]}
    gpus, below = over.get("gpu"), under.get("gpu")
    if isinstance(gpus, list) and isinstance(below, list) and len(gpus) == len(below):
        merged["gpu"] = [{**a, **b} for a, b in zip(below, gpus, strict=True)]
    return merged


def _text(name: str, own: Path | None) -> tuple[str, str]:
    names = profile_names(own)
    name = name if name in names else alias(name, names) or name
    path = own / f"{name}.toml" if own is not None else None
    if path is not None and path.name == f"{name}.toml" and path.is_file():
        return _own_text(path), str(path)
    if name not in _built_in():
        raise UnknownProfile(name, ("auto", *names))
    return files("profiles").joinpath(f"{name}.toml").read_text("utf-8"), f"profile {name}"


def _own_text(path: Path) -> str:
    """Read a person's own file, with or without a byte order mark; BadProfile for one that is too large or not UTF-8."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadProfile(f"{path} cannot be read: {error.strerror}; change its permissions") from None
    if len(raw) > MAX_BYTES:
        raise BadProfile(
            f"{path} is larger than {MAX_BYTES:,} bytes, which is the limit of a profile; shorten it"
        )
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise BadProfile(f"{path} is UTF-16; convert it first: iconv -f UTF-16 -t UTF-8")
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise BadProfile(
            f"{path} is not UTF-8 (byte {error.start + 1:,} is 0x{raw[error.start]:02X}); "
            "convert it first: iconv -f latin1 -t UTF-8"
        ) from None


def _built_in() -> set[str]:
    found = (entry.name for entry in files("profiles").iterdir())
    return {
        name.removesuffix(".toml") for name in found if name.endswith(".toml") and name not in NOT_PROFILES
    }


__all__ = ["card", "load_profile", "profile_names"]
