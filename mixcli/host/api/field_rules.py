"""Rules for fields that a request model does not declare: another name for one of ours, without effect, allowed with some values, or refused."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixcli.system.text import did_you_mean

MAX_SHOWN = 40  # characters of a name in a message


class FieldFault(Exception):
    """One field of an object is refused: its name, OpenAI's code, and the sentence."""

    def __init__(self, name: str, code: str, message: str) -> None:
        super().__init__(message)
        self.name, self.code = name, code


@dataclass(frozen=True)
class FieldRule:
    """What becomes of one field. It is named by `origin`, the API that has it.

    `becomes` is the path of our field that means the same. Without it, a value in `passes` (None: any value) changes nothing and is dropped;
    all others are refused, and `why` ends the sentence.
    """

    origin: str
    becomes: str = ""
    passes: tuple[object, ...] | None = ()
    why: str = ""

    def allows(self, value: object) -> bool:
        """Return whether a value changes nothing; true is not 1, but 1.0 is."""
        if self.passes is None:
            return True
        return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.passes)


def alias(origin: str, becomes: str) -> FieldRule:
    """Return the rule of another name for one of our fields."""
    return FieldRule(origin, becomes)


def harmless(origin: str, why: str) -> FieldRule:
    """Return the rule of a field that changes no answer; `why` is for the docs."""
    return FieldRule(origin, passes=None, why=why)


def only(origin: str, *passes: object, why: str = "") -> FieldRule:
    """Return the rule of a field that is refused with other values than these."""
    return FieldRule(origin, passes=passes, why=why)


@dataclass(frozen=True)
class Translated:
    """An object with our names; `sent` has the client's names of what was renamed."""

    fields: Mapping[str, object]
    sent: Mapping[str, str] = field(default_factory=dict)


def translated(
    body: Mapping[str, object], rules: Mapping[str, FieldRule], declared: frozenset[str]
) -> Translated:
    """Return a body with declared fields only; null counts as absent. FieldFault names a field that is refused or unknown."""
    fields: dict[str, object] = {}
    sent: dict[str, str] = {}
    for name, value in body.items():
        if value is None:
            continue
        rule = rules.get(name)
        if rule is None:
            if name not in declared:
                raise _unknown(name, declared | rules.keys())
            _place(fields, sent, name, name, value)
        elif rule.becomes:
            _place(fields, sent, rule.becomes, name, value)
        elif not rule.allows(value):
            raise _refused(name, rule)
    return Translated(fields, sent)


def _place(fields: dict[str, object], sent: dict[str, str], path: str, name: str, value: object) -> None:
    """Put a value at a path of at most two names; FieldFault where another field has set it already, to another value."""
    outer, _, inner = path.partition(".")
    placed = {inner: value} if inner else value
    if fields.setdefault(outer, placed) != placed:
        other = next((theirs for ours, theirs in sent.items() if ours.partition(".")[0] == outer), outer)
        raise FieldFault(name, "invalid_value", f"{name} and {other} are the same setting; send one of them")
    if path != name:
        sent[path] = name


def _unknown(name: str, known: frozenset[str]) -> FieldFault:
    shown = name[:MAX_SHOWN].encode("utf-8", "replace").decode()
    return FieldFault(
        name, "unknown_parameter", f"unknown field {shown!r}; {did_you_mean(name, known, 'remove it')}"
    )


def _refused(name: str, rule: FieldRule) -> FieldFault:
    step = rule.why or "remove it"
    if not rule.passes:
        return FieldFault(name, "unsupported_parameter", f"{name} is not supported; {step}")
    allowed = " or ".join(json.dumps(one) for one in rule.passes)
    return FieldFault(name, "unsupported_value", f"{name} other than {allowed} is not supported; {step}")


__all__ = ["FieldFault", "FieldRule", "Translated", "alias", "harmless", "only", "translated"]
