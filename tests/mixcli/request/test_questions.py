"""--ask: a name, a question, and what its answer must look like."""

import pytest

from mixcli.errors import UsageError
from mixcli.request.questions import questions_of


@pytest.mark.parametrize(
    ("said", "text", "labels"),
    [
        ("city=What city is named?", "What city is named?", ()),
        ("mood=Is it good? (good|bad)", "Is it good?", ("good", "bad")),
        ("mood=good|so so|bad", "mood: good, so so or bad?", ("good", "so so", "bad")),
        ("the_mood=(good|bad)", "the mood: good or bad?", ("good", "bad")),
        ('who=Is it "A, B"? (A, B|C "D")', 'Is it "A, B"?', ("A, B", 'C "D"')),
        ("place=Where is {{ name }}", "Where is {{ name }}", ()),
        ("sum=What is a=b (in words)?", "What is a=b (in words)?", ()),
    ],
)
def test_texts_and_labels(said: str, text: str, labels: tuple[str, ...]) -> None:
    (found,) = questions_of((said,))
    assert (found.text, found.form.labels) == (text, labels)
    assert found.name == said.partition("=")[0]


def test_fields_in_braces_are_a_short_schema() -> None:
    (found,) = questions_of(("who=Who wrote it? {name, age int, kind (a|b)}",))
    assert found.text == "Who wrote it?"
    assert list(found.form.schema["properties"]) == ["name", "age", "kind"]  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("What city?",), "expected NAME=QUESTION"),
        (("a b=What?",), "expected NAME=QUESTION"),
        (("city=",), "expected NAME=QUESTION"),
        (("x=Is it a|b?",), "put labels in parentheses"),
        (("x=Is it? (a|)",), "a label is empty"),
        (('x=Is it? ("A, B"|C)',), 'the quotes of "A, B" would be part of the label'),
        (("x='yes'|'no'",), "the quotes of 'yes' would be part of the label"),
        (("x=Who? {name, age int}}",), "do not match"),
        (("x={name}",), "no question"),
        (("x=a|b", "x=Why?"), "given twice"),
        (("x=Who? {name wrong}",), "type 'wrong'"),
    ],
)
def test_what_cannot_be_read_is_refused(said: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("(", r"\(")):
        questions_of(said)
