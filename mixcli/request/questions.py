"""Parse the questions of --ask: NAME=QUESTION, with what the answer must look like at the end.

city=What city is named?                               free text
mood=What is its mood? (positive|negative|mixed)       one of these labels
mood=positive|negative|mixed                           the same; the question is made of the name and the labels
who=Who wrote it? {name, age int}                      JSON with these fields, as --schema has them
"""

import re
from dataclasses import dataclass

from mixcli.errors import UsageError
from mixcli.request.choice_labels import in_quotes, labels_of
from mixcli.request.output_format import OutputFormat
from mixcli.request.short_schema import schema_of
from mixcli.system.text import first_repeated

_NAME = re.compile(r"\w[\w-]*")
_LABELS = re.compile(r"\(([^()]*\|[^()]*)\)\s*$")
_SENTENCE = re.compile(r"[?!;:()]|\.(\s|$)")  # what a label of the bare form does not have
EXAMPLE = "--ask 'mood=Is it good or bad? (good|bad)'"


@dataclass(frozen=True)
class AskedQuestion:
    """One question about each record: the name of its column, its text, and the form of its answer."""

    name: str
    text: str
    form: OutputFormat


def questions_of(said: tuple[str, ...]) -> list[AskedQuestion]:
    """Return the questions of --ask in their order. Raises UsageError for one that cannot be read, and for a name that is used twice."""
    found = [_question(text) for text in said]
    names = [one.name for one in found]
    if (twice := first_repeated(names)) is not None:
        raise UsageError(f"--ask {twice} is given twice; each question needs a name of its own")
    return found


def _question(said: str) -> AskedQuestion:
    name, sign, text = said.partition("=")
    name, text = name.strip(), text.strip()
    if not sign or not text or not _NAME.fullmatch(name):
        raise UsageError(f"--ask {said[:60]!r}: expected NAME=QUESTION; write it as {EXAMPLE}")
    if listed := _LABELS.search(text):
        labels = _labels(name, listed[1])
        return AskedQuestion(
            name, text[: listed.start()].strip() or _of_labels(name, labels), _one_of(labels)
        )
    if "|" in text and "{" not in text:
        if _SENTENCE.search(text):
            raise UsageError(
                f"--ask {name}: {text[:60]!r} may be a question or labels; put labels in parentheses at the end: {EXAMPLE}"
            )
        labels = _labels(name, text)
        return AskedQuestion(name, _of_labels(name, labels), _one_of(labels))
    if (fields := _fields(text)) is not None:
        asked = text[: len(text) - len(fields)].strip()
        if not asked:
            raise UsageError(
                f"--ask {name} has fields and no question; write --ask '{name}=Who wrote it? {fields}'"
            )
        return AskedQuestion(name, asked, OutputFormat(schema=schema_of(fields[1:-1])))
    return AskedQuestion(name, text, OutputFormat())


def _fields(text: str) -> str | None:
    """Return the fields in braces at the end of a question; None where it has none: {{ name }} is a place of a template."""
    if not text.endswith("}") or re.search(r"\{\{[^{}]*\}\}$", text):
        return None
    depth = 0
    for at in range(len(text) - 1, -1, -1):
        depth += (text[at] == "}") - (text[at] == "{")
        if not depth:
            return text[at:]
    raise UsageError(f"--ask: the braces of {text[-40:]!r} do not match; write fields as {{name, age int}}")


def _labels(name: str, text: str) -> tuple[str, ...]:
    labels = [label.strip() for label in text.split("|")]
    if not all(labels):
        raise UsageError(f"--ask {name}: a label is empty; write labels as (good|bad)")
    if quoted := next(filter(in_quotes, labels), None):
        raise UsageError(
            f"--ask {name}: the quotes of {quoted[:40]} would be part of the label; write labels as (good|bad)"
        )
    return labels_of("\n".join(f'"{label.replace(chr(34), chr(34) * 2)}"' for label in labels))


def _one_of(labels: tuple[str, ...]) -> OutputFormat:
    return OutputFormat(labels=labels)


def _of_labels(name: str, labels: tuple[str, ...]) -> str:
    """Return the question where only labels are given."""
    return f"{name.replace('_', ' ')}: {', '.join(labels[:-1])} or {labels[-1]}?"


__all__ = ["AskedQuestion", "questions_of"]
