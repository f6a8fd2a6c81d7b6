"""Which names the command line may use for questions and fields: in --ask, --abstain and --eval."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mixcli.batch.job import RecordQuestion
from mixcli.errors import UsageError
from mixcli.host.protocol.messages import object_of
from mixcli.request.json_fields import WHOLE
from mixcli.request.output_format import ABSTAIN, OutputFormat
from mixcli.request.questions import questions_of
from mixcli.request.template import Template, nearest


def questions_of_records(
    asks: tuple[str, ...], record: Template, form: OutputFormat
) -> tuple[RecordQuestion, ...]:
    """Return the questions of --ask, each behind the text of a record, so that the prompts of one record begin alike.

    `form` has --abstain and --confidence. Raises UsageError for a name in --abstain that no question or field has.
    """
    found = []
    for one in questions_of(asks):
        text = Template.parse(one.text)
        joint = f"{record.texts[-1].rstrip()}\n\n{text.texts[0]}"
        template = Template((*record.texts[:-1], joint, *text.texts[1:]), (*record.names, *text.names))
        own, thresholds = form.abstain_from.get(one.name), _below(one.name, form.abstain_from)
        if ABSTAIN in one.form.labels and (own or form.abstain):
            raise UsageError(f"{ABSTAIN!r} is the answer of --abstain, so it cannot be a label")
        shape = replace(
            one.form,
            abstain=form.abstain if own is None else own,
            abstain_from=thresholds,
            confidence=form.confidence and bool(one.form.schema),
        )
        found.append(RecordQuestion(one.name, template, shape))
    if found and form.confidence and not any(one.form.schema for one in found):
        raise UsageError(
            "--confidence has no effect: no question of --ask has fields; end one with {name, age int}, or remove it"
        )
    if found and form.abstain and not any(one.form.labels or one.form.confidence for one in found):
        raise UsageError(
            "--abstain has no effect: no question of --ask has labels; end one with (a|b), or add --confidence for fields"
        )
    named = [(one.name, one.form) for one in found] or [("", form)]
    for name in form.abstain_from:
        _check("--abstain", name, named)
    return tuple(found)


def columns_of(
    golds: tuple[str, ...], questions: tuple[RecordQuestion, ...], form: OutputFormat
) -> dict[str, str]:
    """Return the columns of --eval by the names of questions and fields; that of labels, or of a text, has an empty name.

    Raises UsageError for a name that no question or field has.
    """
    if not questions and not form.schema:
        if len(golds) > 1:
            raise UsageError("--eval is given twice; each record has one answer, so name one field")
        return dict.fromkeys(("",), golds[0]) if golds else {}
    named = [(one.name, one.form) for one in questions] or [("", form)]
    found: dict[str, str] = {}
    for said in golds:
        name, sign, column = (part.strip() for part in said.partition("="))
        _check("--eval", name, named)
        if name in found:
            raise UsageError(f"--eval {name} is given twice; pass it once")
        found[name] = column if sign else name
    return found


def _below(question: str, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return the thresholds of the fields of one question, by their names in its answer."""
    return {
        name[len(question) :].removeprefix("."): least
        for name, least in thresholds.items()
        if name.startswith((f"{question}.", f"{question}["))
    }


def _check(option: str, name: str, named: Iterable[tuple[str, OutputFormat]]) -> None:
    """Raise UsageError where a name is neither a question nor a field at the top of a schema."""
    there: list[str] = []
    for question, form in named:
        fields = [*object_of(form.schema.get("properties"))]
        is_open = bool(form.schema) and not fields  # a list, a single value, or a schema with references
        there += [f"{question}.{one}" if question else one for one in fields]
        there += [question] if question and not form.schema else []
        begins = name.startswith((f"{question}.", f"{question}[")) if question else True
        if (
            is_open
            and begins
            and (question or name == WHOLE or name.startswith("[") or "$ref" in form.schema)
        ):
            return
    if any(name == one or name.startswith((f"{one}.", f"{one}[")) for one in there):
        return
    raise UsageError(
        f"{option} {name}: no question or field of that name; there are {', '.join(there) or 'none'}{nearest(name, tuple(there))}"
    )
