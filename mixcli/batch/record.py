"""The types that every input reader returns: records, and what is known about an input before the first record."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from mixcli.host.protocol.messages import Fields
from mixcli.request.template import lookup


@dataclass(frozen=True)
class Record:
    """One thing to ask about: `fields` by name, `id` its own or its line's number; `fault` says why it cannot be asked.

    `nested` has those fields that are objects or lists as they are, `nulls` names those that are null. A line of an OpenAI batch file has a whole `request` instead of fields.
    """

    id: str | int
    fields: dict[str, str] = field(default_factory=dict)
    request: Fields | None = None
    fault: str = ""
    nested: Fields = field(default_factory=dict, compare=False)
    nulls: frozenset[str] = field(default=frozenset(), compare=False)

    def find(self, name: str) -> str | None:
        """Return what a field has as text, or what a path such as meta.label leads to; None where there is none."""
        return lookup(name, self.fields, self.nested)


@dataclass(frozen=True)
class RecordSource:
    """An opened input: its format, its records, and its columns where they are known before the first record.

    `doubt` says why the first line of a table may be a record and no header, `notes` what was left out or looked into.
    """

    format: str
    records: Iterator[Record]
    columns: tuple[str, ...] | None = None
    doubt: str = ""
    notes: tuple[str, ...] = ()
