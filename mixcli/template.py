"""Prompt templates: text with `{{ name }}` in it, and nothing that could run."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mixcli.errors import UsageError

_PLACE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_NAME = re.compile(r"[^\W\d][\w.-]*|\d+")


@dataclass(frozen=True)
class Template:
    """A text cut at its places: `texts` has one more than `names`, and they take turns.

    What is put in is data: it is not looked at for places again.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Read a template; UsageError where a place has no name that can be meant."""
        pieces = _PLACE.split(text)
        for name in pieces[1::2]:
            if not _NAME.fullmatch(name):
                raise UsageError(
                    f"{{{{ {name} }}}} names nothing; a place is written {{{{ text }}}}, with a field's name"
                )
        return cls(tuple(pieces[::2]), tuple(pieces[1::2]))

    def fill(self, values: Mapping[str, str]) -> str:
        """Put values into the places; UsageError names what has no value, and what there is."""
        for name in self.names:
            if name not in values:
                raise UsageError(
                    f"{{{{ {name} }}}} has no value; there is {', '.join(sorted(values)) or 'none'}"
                )
        pieces = [self.texts[0]]
        for name, text in zip(self.names, self.texts[1:], strict=True):
            pieces += (values[name], text)
        return "".join(pieces)

    @property
    def n_shared(self) -> int:
        """Give how many characters all prompts begin with: what stands before the first place."""
        return len(self.texts[0])

    @property
    def n_constant(self) -> int:
        """Give how many characters do not depend on the values."""
        return sum(map(len, self.texts))
