"""Build the request of a record, and turn its answer into an output line."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mixcli.batch.graded import Graded, Temperature, by_name, columns, graded, tempered
from mixcli.batch.journal import key_of
from mixcli.batch.record import Record
from mixcli.client.completions import choice_of
from mixcli.errors import MixcliError, UsageError
from mixcli.host.protocol.answers import ChatCompletion
from mixcli.host.protocol.messages import ChatBody, Fields
from mixcli.request.output_format import OutputFormat
from mixcli.request.prompt import turns
from mixcli.request.template import Template, nearest, no_value
from mixcli.system.console import console

IDS = ("id", "custom_id")
TEXT = "text"  # the column that is asked about when none is named


Outcome = Fields | MixcliError  # of a question: the part of its answer that is kept, or why there is none


class BatchJob(Protocol):
    """Turns records into requests and answers into lines, which are JSON objects. `outcome` is what the journal keeps: it does not know of ids."""

    def bodies(self, record: Record) -> list[ChatBody]:
        """Return the chat completion requests of a record, one for each question; MixcliError says why there are none."""

    def outcome(self, number: int, answer: ChatCompletion, /) -> dict[str, object]:
        """Return the part of a chat completion to keep, of the question with this number; MixcliError if it does not have the requested format."""

    def line(self, record: Record, key: str, outcomes: Sequence[Fields], /) -> dict[str, object]:
        """Return the line of a record whose questions are answered."""

    def graded(self, outcomes: Sequence[Outcome], /) -> dict[str, Graded]:
        """Return what was answered with its probabilities, by the names of questions and fields."""

    def failure(
        self, record: Record, key: str, error: Exception, outcomes: Sequence[Outcome] = (), /
    ) -> dict[str, object]:
        """Return the line of a record that failed with `error`; `outcomes`, if there are any, are those of all its questions."""


@dataclass(frozen=True)
class RecordQuestion:
    """One of several questions about a record: what its column is called, its prompt, and what its answer must look like."""

    name: str
    template: Template
    form: OutputFormat


@dataclass(frozen=True)
class TemplateJob:
    """One prompt for all: `template` is filled with a record's fields, `variables`, and as `text` the field `column`.

    With `questions` these are asked instead; their prompts begin alike. Probabilities are shown at their temperatures.
    """

    template: Template
    system: str = ""
    form: OutputFormat = field(default_factory=OutputFormat)
    sampling: Fields = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    column: str | None = None
    keep: tuple[str, ...] = ()
    questions: tuple[RecordQuestion, ...] = ()
    temperature: Temperature = by_name({})  # noqa: RUF009  # a function

    def check(self, columns: Sequence[str]) -> None:
        """Raise UsageError when records with these columns could not be asked about, or lack one that is kept."""
        self.bodies(Record(0, dict.fromkeys(columns, "")))
        if missing := next((name for name in self.keep if name not in columns), None):
            raise UsageError(
                f"--keep: no column {missing!r}; columns are {', '.join(columns)}{nearest(missing, tuple(columns))}"
            )

    @property
    def question(self) -> str:
        """Return the name of what is asked, 32 hex digits: the prompts and the forms of the answers, of whatever records."""
        return key_of(self.system, {one.name: [one.template, one.form.body()] for one in self._asked})

    def takes_only(self, columns: Sequence[str]) -> bool:
        """Return whether {{ text }} means the only column because it is the only one: nothing says that it is called so."""
        named = {*self.template.names, *self.keep, self.column}
        return len(columns) == 1 and columns[0] not in named and columns[0] != TEXT

    def bodies(self, record: Record) -> list[ChatBody]:
        if clash := self.variables.keys() & record.fields.keys():
            raise UsageError(f"-v {min(clash)}: the record has a field of that name; rename the variable")
        values = {**self.variables, **record.fields, **self._text(record)}
        meant = self.column or self.only_field(record) or TEXT
        if TEXT in self.variables and meant != TEXT:
            raise UsageError(f"-v {TEXT}: {{{{ {TEXT} }}}} is the field {meant!r} here; rename the variable")
        if meant in record.nulls and TEXT in self.template.names:
            raise UsageError(
                f"{{{{ text }}}} has no value: the field {meant!r} is null; add text to the record or remove the record"
            )
        return [
            ChatBody(
                turns(self.system, one.template.fill(values, record.nested)), self._options(one), one.form
            )
            for one in self._asked
        ]

    def outcome(self, number: int, answer: ChatCompletion, /) -> dict[str, object]:
        choice, form = choice_of(answer), self._asked[number].form
        usage = answer.usage.to_json()
        return {
            **form.read(choice.text, choice.finish_reason, choice.label_probs, choice.field_probs),
            "usage": {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage},
        }

    def line(self, record: Record, _key: str, outcomes: Sequence[Fields], /) -> dict[str, object]:
        decided = self._decided(outcomes)
        said = columns(decided) if self.questions else decided[""]
        return {"id": record.id, **self._kept(record), **said}

    def graded(self, outcomes: Sequence[Outcome], /) -> dict[str, Graded]:
        found: dict[str, Graded] = {}
        for one, outcome in self._answered(outcomes):
            found |= graded(tempered(outcome, one.name, self.temperature), one.name, one.form)
        return found

    def _decided(self, outcomes: Sequence[Outcome]) -> dict[str, Fields]:
        """Return the results of the questions that were answered, by their names."""
        return {
            one.name: one.form.decided(tempered(outcome, one.name, self.temperature))
            for one, outcome in self._answered(outcomes)
        }

    def _answered(self, outcomes: Sequence[Outcome]) -> Iterator[tuple[RecordQuestion, Fields]]:
        for one, outcome in zip(self._asked, outcomes, strict=True):
            if not isinstance(outcome, MixcliError):
                yield one, outcome

    @property
    def _asked(self) -> tuple[RecordQuestion, ...]:
        return self.questions or (RecordQuestion("", self.template, self.form),)

    def _options(self, one: RecordQuestion) -> Fields:
        """Return the sampling parameters; labels are chosen without."""
        return (
            self.sampling
            if not (self.questions and one.form.labels)
            else {name: value for name, value in self.sampling.items() if name == "deterministic"}
        )

    def failure(
        self, record: Record, _key: str, error: Exception, outcomes: Sequence[Outcome] = (), /
    ) -> dict[str, object]:
        told: dict[str, object] = {"message": str(error), "exit_code": getattr(error, "exit_code", 1)}
        said: dict[str, object] = {}
        if self.questions and outcomes:
            told["questions"] = {
                one.name: str(outcome)
                for one, outcome in zip(self.questions, outcomes, strict=True)
                if isinstance(outcome, MixcliError)
            }
            decided = self._decided(outcomes)
            said = columns(decided) if decided else {}
        return {"id": record.id, **self._kept(record), **said, "error": told}

    def text_of(self, record: Record) -> str | None:
        """Return what {{ text }} is for a record that can be asked about; None where the prompt has no such place."""
        return {**record.fields, **self._text(record)}.get(TEXT) if TEXT in self.template.names else None

    def only_field(self, record: Record) -> str | None:
        """Return the only field apart from an id, which {{ text }} means then; None if {{ text }} means a field by name."""
        if (
            self.column is not None
            or TEXT in record.fields
            or TEXT not in self.template.names
            or len(record.fields) != 1
        ):
            return None
        name = next(iter(record.fields))
        return None if name in IDS else name

    def _text(self, record: Record) -> dict[str, str]:
        fields = record.fields
        if self.column is not None:
            found = record.find(self.column)
            if found is None:
                there = no_value(f"{self.column!r}", fields).partition("; ")[2]
                raise UsageError(f"no field {self.column!r}; {there}")
            return {TEXT: found}
        name = self.only_field(record)
        if name is None:
            return {}
        if name in record.nested:
            raise UsageError(
                f"{{{{ text }}}} has no value: the only field, {name!r}, is an object or a list; write the part to use, as {{{{ {name} }}}}"
            )
        return {TEXT: fields[name]}

    def _kept(self, record: Record) -> dict[str, str]:
        found = {name: record.find(name) for name in self.keep}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class RequestJob:
    """OpenAI's batch format: every record is a whole request, and the answers go out as OpenAI writes them.

    `model` is the one that the command line names for a server: a request that names another one is refused.
    """

    sampling: Fields = field(default_factory=dict)
    model: str | None = None

    def bodies(self, record: Record) -> list[ChatBody]:
        said = {
            name: value
            for name, value in (record.request or {}).items()
            if name not in ("stream", "stream_options")
        }
        if self.model is not None and said.get("model", self.model) != self.model:
            raise UsageError(
                f"the request names the model {json.dumps(said['model'])[:80]}, but -m is {json.dumps(self.model)}; use one of them"
            )
        return [ChatBody(options=self.sampling, whole=said)]

    def outcome(self, _number: int, answer: ChatCompletion, /) -> dict[str, object]:
        return {"body": dict(answer.body)}

    def line(self, record: Record, key: str, outcomes: Sequence[Fields], /) -> dict[str, object]:
        return self._line(record, key, 200, outcomes[0]["body"], None)

    def graded(self, _outcomes: Sequence[Outcome], /) -> dict[str, Graded]:
        return {}

    def failure(
        self, record: Record, key: str, error: Exception, _outcomes: Sequence[Outcome] = (), /
    ) -> dict[str, object]:
        told = {"message": str(error), "code": str(getattr(error, "param", None) or type(error).__name__)}
        status = 400 if isinstance(error, UsageError) or getattr(error, "exit_code", 1) in (2, 4) else 500
        return self._line(record, key, status, {"error": told}, told)

    @staticmethod
    def _line(record: Record, key: str, status: int, body: object, error: Fields | None) -> dict[str, object]:
        name = key_of(key, {"custom_id": record.id})  # of this record alone: two may ask the same
        response = {"status_code": status, "request_id": name, "body": body}
        return {"id": f"batch_req_{name}", "custom_id": record.id, "response": response, "error": error}


def prompt_template(prompt: str | None) -> Template:
    """Read --prompt; where it names no place for the record, the record comes last, so that all prompts begin alike."""
    template = Template.parse(prompt or "{{ text }}")
    if template.names:
        return template
    warn_of_braces(template, (TEXT,))  # before it has a place for that
    return Template((f"{template.texts[0].rstrip()}\n\n", ""), (TEXT,))


def warn_of_braces(template: Template, names: Collection[str]) -> None:
    """Warn of one of some names that stands in other braces than those of a place."""
    if one := template.misspelled(names):
        console.warn(
            f"the prompt has {one}, which is sent as it is; write a field's place as {{{{ {TEXT} }}}}"
        )


Ask = Callable[[ChatBody, str], ChatCompletion]  # (request, its key) -> its answer; raises MixcliError
