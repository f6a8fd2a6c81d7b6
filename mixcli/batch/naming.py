"""Which names the command line may use for questions and fields: in --ask, --abstain and --eval."""

from collections.abc import Mapping

from mixcli.batch.graded import joined
from mixcli.batch.job import RecordQuestion
from mixcli.errors import UsageError
from mixcli.host.protocol.messages import object_of
from mixcli.request.json_fields import path_name
from mixcli.request.output_format import ABSTAIN, OutputFormat
from mixcli.request.questions import questions_of
from mixcli.request.template import Template, nearest


def questions_of_records(
    asks: tuple[str, ...], record: Template, form: OutputFormat
) -> tuple[RecordQuestion, ...]:
    """Return the questions of --ask, each after the text of a record, so that the prompts of one record begin alike.

    `form` has --abstain and --confidence. Raises UsageError for a name in --abstain that no question or field has.
    """
    found = []
    for one in questions_of(asks):
        text = Template.parse(one.text)
        joint = f"{record.texts[-1].rstrip()}\n\n{text.texts[0]}"
        template = Template((*record.texts[:-1], joint, *text.texts[1:]), (*record.names, *text.names))
        own, thresholds = form.abstain_from.get(one.name), _below(one.name, form.abstain_from)
        if ABSTAIN in one.form.labels and (own or form.abstain):
            raise UsageError(
                f"{ABSTAIN!r} is the answer of --abstain, so it cannot be a label; rename the label"
            )
        shape = one.form._replace(
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
    for name in form.abstain_from:
        _check("--abstain", name, _named(tuple(found), form))
    return tuple(found)


def columns_of(
    golds: tuple[str, ...], questions: tuple[RecordQuestion, ...], form: OutputFormat
) -> dict[str, str]:
    """Return the columns of --eval by the names of questions and fields; that of labels, or of a text, has an empty name.

    Raises UsageError for a name that no question or field has.
    """
    if not questions and not form.schema:
        if len(golds) > 1:
            raise UsageError("--eval is given twice; each record has one answer, so pass one field")
        return dict.fromkeys(("",), golds[0]) if golds else {}
    named = _named(questions, form)
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


def check_calibrated(
    temperatures: Mapping[str, float], questions: tuple[RecordQuestion, ...], form: OutputFormat
) -> None:
    """Raise UsageError where none of the temperatures belongs to a question or field of this batch."""
    named = _named(questions, form)
    if not temperatures or any(_is_known(name, named) for name in temperatures):
        return
    fitted = ", ".join(name or "the labels of --choice" for name in temperatures)
    raise UsageError(
        f"--calibration has no effect: it was fitted for {fitted}, and this batch asks something else; fit another one with --eval"
    )


Named = list[tuple[str, OutputFormat]]


def _named(questions: tuple[RecordQuestion, ...], form: OutputFormat) -> Named:
    return [(one.name, one.form) for one in questions] or [("", form)]


def _check(option: str, name: str, named: Named) -> None:
    """Raise UsageError where a name is neither a question nor a field at the top of a schema."""
    if _is_known(name, named):
        return
    there = [one for question, form in named for one in _names(question, form)]
    raise UsageError(
        f"{option} {name}: no question or field of that name; there are {', '.join(there) or 'none'}{nearest(name, tuple(there))}"
    )


def _is_known(name: str, named: Named) -> bool:
    return any(_is_of(name, question, form) for question, form in named)


def _is_of(name: str, question: str, form: OutputFormat) -> bool:
    """Return whether a name is that of a question, or of a field in its answer; below the top of a schema any name may be one."""
    if not form.schema:
        return name == question
    if any(name == one or name.startswith((f"{one}.", f"{one}[")) for one in _names(question, form)):
        return True
    if object_of(form.schema.get("properties")):
        return False
    inside = _below(question, {name: 0.0}) if question else {name: 0.0}  # a list, a value, or a reference
    return bool(inside)


def _names(question: str, form: OutputFormat) -> list[str]:
    """Return the names of a question, or of the fields at the top of its schema."""
    if not form.schema:
        return [question] if question else []
    return [joined(question, path_name((one,))) for one in object_of(form.schema.get("properties"))]
