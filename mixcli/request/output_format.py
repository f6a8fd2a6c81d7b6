"""The output format of an answer: free text, a label, JSON, a regular expression or a grammar."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mixcli.errors import MixcliError, UsageError
from mixcli.system.stdin import read_text, said

if TYPE_CHECKING:
    from mixcli.request.probability import Probability

ABSTAIN = "abstain"  # what is printed where no label is likely enough
NO_SCHEMA: Mapping[str, object] = {}
NO_FIELDS: Mapping[str, float] = {}
NONE: "Mapping[str, Probability]" = {}


class OutputFormat(NamedTuple):
    """The required form of an answer. At most one of the four is set.

    `abstain` is the least probability of a valid label, or field with listed values; `abstain_from` has that of single fields, whatever they
    are. With `confidence` an answer in JSON comes with the probabilities of its fields.
    """

    labels: tuple[str, ...] = ()
    schema: Mapping[str, object] = NO_SCHEMA
    regex: str = ""
    grammar: str = ""
    abstain: float = 0.0
    abstain_from: Mapping[str, float] = NO_FIELDS
    confidence: bool = False

    @property
    def option(self) -> str:
        """Return the option that it came from; nothing where the answer is free."""
        forms = {
            "--choice": self.labels,
            "--schema": self.schema,
            "--regex": self.regex,
            "--grammar": self.grammar,
        }
        return next((name for name, value in forms.items() if value), "")

    def body(self) -> dict[str, object]:
        """Return the fields of a chat completion request that ask for it."""
        if self.labels:
            return {"structured_outputs": {"choice": list(self.labels)}}
        if self.schema:
            named = {"name": "answer", "schema": dict(self.schema), "strict": True}
            more = {"field_probs": True} if self.confidence else {}
            return {"response_format": {"type": "json_schema", "json_schema": named}, **more}
        if self.regex:
            return {"structured_outputs": {"regex": self.regex}}
        if self.grammar:
            return {"structured_outputs": {"grammar": self.grammar}}
        return {}

    def read(
        self,
        text: str,
        finish_reason: str,
        label_probs: Mapping[str, float],
        field_probs: "Mapping[str, Probability]" = NONE,
    ) -> dict[str, object]:
        """Return the result fields of an answer; MixcliError where it does not have the form, as from a server that does not support it."""
        if self.labels:
            return self._label(text.strip(), label_probs)
        if self.schema:
            read = {
                "result": _json(text, finish_reason, self.schema),
                "finish_reason": finish_reason,
            }
            if not self.confidence:
                return read
            if not field_probs:
                raise MixcliError("the server returns no probabilities of fields; remove --confidence")
            return {**read, "field_probs": {name: one.to_json() for name, one in field_probs.items()}}
        return {"result": text, "finish_reason": finish_reason}

    def _label(self, label: str, probs: Mapping[str, float]) -> dict[str, object]:
        if label not in self.labels:
            raise MixcliError(
                f"the answer {label[:80]!r} is not one of the labels; check that the server supports structured_outputs"
            )
        if self.abstain and label not in probs:
            raise MixcliError("the server returns no label probabilities; remove --abstain")
        read: dict[str, object] = {"result": label}
        return self.decided({**read, "label_probs": dict(probs)} if probs else read)

    def decided(self, read: Mapping[str, object]) -> dict[str, object]:
        """Return a result with --abstain applied as it is now: a result from the journal may come from another threshold.

        A label below it is null; so are fields below theirs, whose names are `abstained`.
        """
        if self.schema and self.confidence:
            return self._decided_fields(read)
        probs = read.get("label_probs")
        if not self.labels or not isinstance(probs, dict) or not probs:
            return dict(read)
        label = read.get("result") if read.get("result") in probs else max(probs, key=probs.__getitem__)
        return {**read, "result": None if probs[label] < self.abstain else label}

    def _decided_fields(self, read: Mapping[str, object]) -> dict[str, object]:
        from mixcli.request.json_fields import without
        from mixcli.request.probability import Probability

        told = read.get("field_probs")
        named = {
            name: found
            for name, one in (told.items() if isinstance(told, dict) else ())
            if (found := Probability.of(one)) is not None
        }
        low = [name for name, one in named.items() if one.value < self.threshold(name, one)]
        if not low:
            return dict(read)
        return {**read, "result": without(read.get("result"), frozenset(low)), "abstained": low}

    def threshold(self, name: str, found: "Probability") -> float:
        """Return the least probability of a field."""
        from mixcli.request.json_fields import any_index

        by_name = self.abstain_from.get(name, self.abstain_from.get(any_index(name)))
        return by_name if by_name is not None else self.abstain if found.is_exact else 0.0


def _json(text: str, finish_reason: str, schema: Mapping[str, object]) -> object:
    from mixcli.request.schema_fit import misfit
    from mixcli.system import strict_json

    try:
        value = strict_json.loads(text)
    except ValueError as error:
        if finish_reason == "length":
            raise MixcliError(
                "the answer was truncated before its JSON ended; pass a larger --max-tokens"
            ) from error
        raise MixcliError(
            f"the answer is not JSON ({error}); check that the server supports response_format"
        ) from error
    if fault := misfit(value, schema):
        raise MixcliError(
            f"the answer does not match the schema ({fault}); check that the server supports response_format"
        )
    return value


def form_of(
    choice: str | None, schema: str | None, regex: str | None, grammar: str | None, abstain: float | None
) -> OutputFormat:
    """Read what the command line says of the form; UsageError for one that cannot be."""
    if choice is not None:
        return OutputFormat(labels=_labels(choice, abstain), abstain=abstain or 0.0)
    if schema is not None:
        return OutputFormat(schema=_schema(schema))
    if grammar is not None:
        return OutputFormat(grammar=_file_or_text("--grammar", grammar, ".gbnf", ".lark"))
    return OutputFormat(regex=regex or "")


def _labels(text: str, abstain: float | None) -> tuple[str, ...]:
    from mixcli.request.choice_labels import labels_of

    labels = labels_of(text)
    if abstain is not None and ABSTAIN in labels:
        raise UsageError(f"{ABSTAIN!r} is the answer of --abstain, so it cannot be a label; rename the label")
    return labels


def _schema(text: str) -> Mapping[str, object]:
    from mixcli.request.short_schema import schema_of

    if text.strip().isidentifier() and _is_file(Path(text)):
        raise UsageError(f"--schema {text!r} is both a file and a field name; write ./{text} for the file")
    return schema_of(_file_or_text("--schema", text, ".json"))


def _file_or_text(option: str, text: str, *suffixes: str) -> str:
    """Return what a file holds where the text is its path: it is there, or the text looks like nothing else."""
    path = Path(text)
    looks_like_one = path.suffix in suffixes or text.startswith(("/", "./", "../", "~/"))
    is_path = _is_file(path) or (looks_like_one and not set('\n,{"') & set(text))
    return read_text(path) if is_path else said(text, option)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text that is too long for a name
        return False
