"""Prompt templates: text with `{{ name }}` placeholders, and no code.

{{ text }}  {{ Customer Name }}  {{ "Price ($)" }}      a field, in quotes where its name has other signs
{{ meta.user.name }}  {{ tags[0] }}  {{ meta["a b"] }}  what stands inside of a field that is an object or a list
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from mixcli.errors import UsageError
from mixcli.system.text import nearest as nearest_name

# Patterns are compiled when they are first used: most prompts have no template.
# Blanks are stripped afterwards: matched here, they would take quadratic time.
_PLACE = r"""\{\{((?:"[^"\n]*"|'[^'\n]*'|[^{}"'])*+)\}\}"""
_TORN = r"(?m)\{\{[^\S\n]*+\w[\w. -]*+\}?[^\S\n]*+$"  # a name, and the line ends
# a name in other braces than two and two, possessive so that it takes linear time
_BRACED = r"(?<!\{)\{++[^\S\n]*+([\w.-]++(?: [\w.-]++)*+)[^\S\n]*+\}"
_WORDS = r"\w[\w.-]*(?:[^\S\n]+\w[\w.-]*)*"
_STEP = r"""\[\s*(?:(\d+)|"([^"]+)"|'([^']+)')\s*\]|\.?([^.\[\]]+)"""
_NAME = rf"""{_WORDS}(?:\[\s*(?:\d+|"[^"]+"|'[^']+')\s*\](?:\.{_WORDS})?)*"""
_QUOTED = r"""\s*(?:"([^"]+)"|'([^']+)')\s*"""
SHOWN = 20  # names that an error lists


class Template(NamedTuple):
    """A text cut at its placeholders: `texts` has one more than `names`, and they alternate. What is filled in is data: it is not searched for placeholders."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template; UsageError where a placeholder has no valid name."""
        pieces = re.split(_PLACE, text)
        if torn := next((found for piece in pieces[::2] if (found := re.search(_TORN, piece))), None):
            raise UsageError(f"{torn[0].strip()} is never closed; write placeholders as {{{{ text }}}}")
        return cls(tuple(pieces[::2]), tuple(_name(place.strip()) for place in pieces[1::2]))

    def fill(self, values: Mapping[str, str], nested: Mapping[str, Any] | None = None) -> str:
        """Put values into the places; UsageError names what has no value, and what there is.

        `nested` has the objects and lists among the values as they are, for places that look into them.
        """
        pieces = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            pieces += (_value(name, values, nested or {}), text)
        return "".join(pieces)

    def check_used(self, variables: Collection[str], what: str) -> None:
        """Raise UsageError for a variable of the command line that the template, called `what`, has no place for."""
        if unused := sorted(set(variables) - set(self.names)):
            name = unused[0]
            raise UsageError(f"-v {name}: {what} has no {{{{ {name} }}}}{nearest(name, self.names)}")

    def misspelled(self, names: Collection[str]) -> str:
        """Return how one of some names is written that stands in other braces, such as {text}; empty where there is none, and for a name that has a place too."""
        found = (match for text in self.texts for match in re.finditer(_BRACED, text))
        return next((one[0] for one in found if one[1] in names and one[1] not in self.names), "")

    @property
    def n_shared(self) -> int:
        """Return how many characters all prompts begin with: what stands before the first place."""
        return len(self.texts[0])

    @property
    def n_constant(self) -> int:
        """Return how many characters do not depend on the values."""
        return sum(map(len, self.texts))


_TEXT_PLACE = "{{ text }}"  # which a prompt without a place ends with: the record's text


def as_text(value: Any) -> str:
    """Return a JSON value as it goes into a prompt: a text as it is, null as nothing, all else as JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def no_value(name: str, values: Mapping[str, Any]) -> str:
    """Return the sentence about a name that is not among the values, with the nearest one that is."""
    there = sorted(values)
    more = f" and {len(there) - SHOWN} more" if len(there) > SHOWN else ""
    listed = ", ".join(there[:SHOWN]) or "none"
    step = "; pass --column NAME, or write {{ NAME }} in the prompt" if name == _TEXT_PLACE else ""
    return f"{name} has no value; fields are {listed}{more}{nearest(name, values) or step}"


def nearest(name: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return "; did you mean X?" where one of the names is near, else nothing."""
    near = nearest_name(name, names, cutoff=0.75)
    return f"; did you mean {near}?" if near else ""


def lookup(name: str, values: Mapping[str, str], nested: Mapping[str, Any]) -> str | None:
    """Return the value of a name or path; None where there is none."""
    try:
        return _value(name, values, nested)
    except UsageError:
        return None


def _name(inside: str) -> str:
    """Return the name that stands in a place, without the quotes around all of it."""
    if quoted := re.fullmatch(_QUOTED, inside):
        return quoted[1] or quoted[2]
    if not re.fullmatch(_NAME, inside):
        raise UsageError(
            f"{{{{ {inside} }}}} is not a valid placeholder; write {{{{ text }}}} or a field's name, "
            'in double quotes if it has special characters: {{ "Price ($)" }}'
        )
    return inside


def _value(name: str, values: Mapping[str, str], nested: Mapping[str, Any]) -> str:
    found = _inside(name, nested) if nested and name not in values else None
    if found is not None:
        return as_text(found[0])
    if name in values:
        if "." in name and nested and _inside(name, nested, strict=False) is not None:
            raise UsageError(
                f"{{{{ {name} }}}} is ambiguous: a field, and part of another field; rename one of them"
            )
        return values[name]
    raise UsageError(no_value(f"{{{{ {name} }}}}", values))


def _inside(name: str, nested: Mapping[str, Any], *, strict: bool = True) -> tuple[Any] | None:
    """Return what a path such as meta.user.name or tags[0] leads to; None where it does not begin with such a field.

    With `strict` a path that breaks off raises UsageError, which says where.
    """
    steps = [next(part for part in step if part) for step in re.findall(_STEP, name)]
    first = next((n for n in range(len(steps), 0, -1) if ".".join(steps[:n]) in nested), 0)
    if not first or first == len(steps):
        return None
    value: Any = nested[".".join(steps[:first])]
    for n, step in enumerate(steps[first:], first):
        here = ".".join(steps[:n])
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif strict:
            raise UsageError(f"{{{{ {name} }}}} has no value: {_lacks(here, step, value)}")
        else:
            return None
    return (value,)


def _lacks(here: str, step: str, value: Any) -> str:
    if isinstance(value, dict):
        return f"{here} has no {step}; it has {', '.join(list(value)[:SHOWN]) or 'nothing'}{nearest(step, value)}"
    if isinstance(value, list):
        return f"{here} is a list of {len(value)}, which has no {step}"
    return f"{here} is {as_text(value)[:60] or 'null'}, which has no fields"
