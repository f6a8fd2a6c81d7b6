"""Typed and bounded reads from an untrusted JSON object."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from quantize.errors import MalformedFile
from quantize.wording import shown


@dataclass(frozen=True)
class Fields:
    """The fields of one object; what is missing or wrong is CorruptFile, with the key and `where` it was."""

    values: Mapping[str, Any]
    where: str

    def count(self, key: str, limit: int, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise MalformedFile(
                f"{self.where} has {_said(key, value)}; it must be a number from 1 to {limit}"
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e30:
            raise MalformedFile(f"{self.where} has {_said(key, value)}; it must be a number of at least 0")
        return float(value)

    def flag(self, key: str) -> bool:
        value = self.values.get(key)
        if value not in (None, True, False):
            raise MalformedFile(f"{self.where} has {_said(key, value)}; it must be true or false")
        return bool(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        value = self.values.get(key)
        if value is None or value is False or value in ("", "none", "None", []):
            return {}
        if not isinstance(value, dict):
            raise MalformedFile(f"{self.where} has {_said(key, value)}; it must be an object")
        return value


def is_none(value: object) -> bool:
    """Return whether a configuration value means "not set", as in transformers."""
    return value is None or value is False or value in ("", "none", "None", {}, [])


def without_none(values: Mapping[str, Any], by_number: AbstractSet[str]) -> dict[str, Any]:
    """Return what a configuration really says: without what means "none" or "the default"; for keys `by_number` 0 and -1 mean it too."""
    return {
        key: value
        for key, value in values.items()
        if value is not None and not (key in by_number and (value is False or value in (0, -1)))
    }


def _said(key: str, value: object) -> str:
    return f"no {key}" if value is None else f"{key} = {shown(value)}"
