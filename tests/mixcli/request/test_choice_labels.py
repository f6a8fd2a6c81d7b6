"""What --choice means, and that nothing that could mean two things is taken for one of them."""

import pytest

from mixcli.errors import UsageError
from mixcli.request.choice_labels import labels_of


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ('"Smith, John","Doe, Jane"', ("Smith, John", "Doe, Jane")),
        (' "Smith, John" , Doe ', ("Smith, John", "Doe")),
        ('"a ""q"" b", c', ('a "q" b', "c")),
        ('5" pipe,6" pipe', ('5" pipe', '6" pipe')),
        ("don't,'tis,'twas", ("don't", "'tis", "'twas")),
        (" spam ,\tham ", ("spam", "ham")),
        ("spam\nham\r\n", ("spam", "ham")),
        ("spam,\nham,\nother\n", ("spam", "ham", "other")),
        ('"Smith, John"\n"Doe, Jane"', ("Smith, John", "Doe, Jane")),
        ('["Smith, John", "Doe"]', ("Smith, John", "Doe")),
    ],
)
def test_labels(text: str, labels: tuple[str, ...]) -> None:
    assert labels_of(text) == labels


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('"Smith, John', "is not closed"),
        ('"a"b,c', "is not closed"),
        ("'Smith, John','Doe, Jane'", "plain double quotes"),
        ("'a','b'", "plain double quotes"),
        ("“Smith, John”,“Doe, Jane”", "plain double quotes"),
        (r"Smith\, John,Doe\, Jane", "backslash"),
        ("[a,b]", "JSON array"),
        ('["a", 1]', "JSON array"),
        ("Smith, John\nDoe, Jane", "line breaks and commas"),
        ("a,,b", "label 2 of 3 is empty"),
        ("a,b,", "label 3 of 3 is empty"),
        ('a,"",b', "label 2 of 3 is empty"),
        (' a,"a"', "'a' twice"),
        ("", "at least two labels, and .* has 0"),
        ("a;b", "at least two labels, and .* has 1"),
        ('"a,b"', "at least two labels, and .* has 1"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labels_of(text)


def test_labels_that_differ_in_case_only_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert labels_of("Yes,yes,no") == ("Yes", "yes", "no")
    assert "'Yes' and 'yes' differ only in case" in capsys.readouterr().err
