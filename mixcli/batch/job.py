"""What is asked of every record, and what is written of the answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mixcli.batch.records import Record
from mixcli.errors import MixcliError, UsageError
from mixcli.form import Form
from mixcli.host.answers import Halves, delta_of
from mixcli.template import Template

TEXT = "text"  # the column that is asked about when none is named


class Job(Protocol):
    """Turns records into requests and answers into lines. `outcome` is what the journal keeps: it does not know of ids."""

    def body(self, record: Record) -> dict[str, Any]:
        """Give the chat completion request of a record; MixcliError says why there is none."""

    def outcome(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        """Give what is kept of a chat completion; MixcliError when it is not what was asked for."""

    def line(self, record: Record, key: str, outcome: Mapping[str, Any], /) -> dict[str, Any]:
        """Give the line of an answered record."""

    def failure(self, record: Record, key: str, error: Exception, /) -> dict[str, Any]:
        """Give the line of a record that failed."""


@dataclass(frozen=True)
class TemplateJob:
    """One prompt for all: `template` is filled with a record's fields, `variables`, and as `text` the field `column`."""

    template: Template
    system: str = ""
    form: Form = field(default_factory=Form)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    column: str | None = None
    keep: tuple[str, ...] = ()

    def check(self, columns: Sequence[str]) -> None:
        """Raise UsageError when records with these columns could not be asked about, or lack one that is kept."""
        self.body(Record(0, dict.fromkeys(columns, "")))
        if missing := next((name for name in self.keep if name not in columns), None):
            raise UsageError(f"--keep: there is no column {missing!r}; there is {', '.join(columns)}")

    def body(self, record: Record) -> dict[str, Any]:
        values = {**self.variables, **record.fields, **self._text(record.fields)}
        messages = [{"role": "system", "content": self.system}] if self.system else []
        messages.append({"role": "user", "content": self.template.fill(values)})
        return {"messages": messages, **self.form.body(), **self.sampling}

    def outcome(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        text, reason, probs = read_answer(answer)
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        return {
            **self.form.read(text, reason, probs),
            "usage": {name: usage[name] for name in ("prompt_tokens", "completion_tokens") if name in usage},
        }

    def line(self, record: Record, _key: str, outcome: Mapping[str, Any], /) -> dict[str, Any]:
        return {"id": record.id, **self._kept(record), **outcome}

    def failure(self, record: Record, _key: str, error: Exception, /) -> dict[str, Any]:
        told = {"message": str(error), "exit_code": getattr(error, "exit_code", 1)}
        return {"id": record.id, **self._kept(record), "error": told}

    def _text(self, fields: Mapping[str, str]) -> dict[str, str]:
        if self.column is None:
            only = next(iter(fields.values()), None) if len(fields) == 1 else None
            return {TEXT: only} if TEXT not in fields and only is not None else {}
        if self.column not in fields:
            raise UsageError(f"there is no field {self.column!r}; there is {', '.join(fields) or 'none'}")
        return {TEXT: fields[self.column]}

    def _kept(self, record: Record) -> dict[str, str]:
        return {name: record.fields[name] for name in self.keep if name in record.fields}


@dataclass(frozen=True)
class RequestJob:
    """OpenAI's batch format: every record is a whole request, and the answers go out as OpenAI writes them."""

    sampling: Mapping[str, Any] = field(default_factory=dict)

    def body(self, record: Record) -> dict[str, Any]:
        said = {
            name: value
            for name, value in (record.request or {}).items()
            if name not in ("stream", "stream_options")
        }
        return {**self.sampling, **said}

    def outcome(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {"body": dict(answer)}

    def line(self, record: Record, key: str, outcome: Mapping[str, Any], /) -> dict[str, Any]:
        return self._line(record, key, 200, outcome["body"], None)

    def failure(self, record: Record, key: str, error: Exception, /) -> dict[str, Any]:
        told = {"message": str(error), "code": str(getattr(error, "param", None) or type(error).__name__)}
        status = 400 if isinstance(error, UsageError) or getattr(error, "exit_code", 1) in (2, 4) else 500
        return self._line(record, key, status, {"error": told}, told)

    @staticmethod
    def _line(record: Record, key: str, status: int, body: Any, error: Any) -> dict[str, Any]:
        response = {"status_code": status, "request_id": key, "body": body}
        return {"id": f"batch_req_{key}", "custom_id": record.id, "response": response, "error": error}


def read_answer(answer: Mapping[str, Any]) -> tuple[str, str, dict[str, float]]:
    """Give text, finish reason and label probabilities of a chat completion object; MixcliError when it is none."""
    choices = answer.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(first, dict) or not isinstance(first.get("message"), dict):
        raise MixcliError("the server's answer is no chat completion")
    delta = delta_of(dict(answer))
    return Halves().join(delta.text, is_last=True), delta.finish_reason or "stop", delta.label_probs


def prompt_template(prompt: str | None) -> Template:
    """Read --prompt; where it names no place for the record, the record comes last, so that all prompts begin alike."""
    template = Template.parse(prompt or "{{ text }}")
    return template if template.names else Template((f"{template.texts[0].rstrip()}\n\n", ""), (TEXT,))


Ask = Callable[
    [Mapping[str, Any], str], dict[str, Any]
]  # (request, its key) -> chat completion; raises MixcliError
