"""tests/messages.txt holds every message, and none has an avoided phrase."""

import ast
import re
from pathlib import Path

import pytest

from tests.avoided_phrases import findings, in_docstring, in_message, in_source
from tests.conftest import ROOT
from tests.messages import PACKAGES, messages_page, texts_of

PAGE = ROOT / "tests" / "messages.txt"

SOURCE = '''
"""A module."""

@click.command("x")
@click.option("--y", metavar="NAME", help="Once.")
def command(name: Literal["a word"]) -> None:
    """Do it.

    Twice.
    """
    raise Error(f"{name!r}: {len(name):,} bytes" + "; cut it") from None

def other() -> None:
    """Not shown to users."""
    console.note("done")
    console.table(["MODEL", "SIZE"], rows)
    other("word", key["a b"], "SELECT a FROM b")
    assert True, "only a bug"

TABLE = {"/go": SlashCommand(other, "[NAME]", "go there")}
'''


def test_the_page_has_every_message() -> None:
    assert PAGE.read_text("utf-8") == messages_page(), "run `make messages`, and read what has changed"


def test_no_message_docstring_or_comment_has_an_avoided_phrase() -> None:
    assert list(findings(ROOT)) == []


def test_no_error_ends_with_a_period() -> None:
    """Errors of all rooms look alike, and what follows one in a longer sentence reads well: "...; use another file; retry"."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    texts = map(ast.unparse, node.exc.args)
                    assert not any(re.search(r"(?<!\.)\.['\"]$", text) for text in texts), (
                        f"{path}:{node.lineno}"
                    )


def test_texts_are_found_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "command.py"
    path.write_text(SOURCE)
    assert texts_of(path) == [
        ("", "NAME"),
        ("", "Once."),
        ("command", "Do it.\n\nTwice."),
        ("command", "{name}: {len(name)} bytes; cut it"),
        ("other", "done"),
        ("other", "MODEL"),
        ("other", "SIZE"),
        ("/go", "[NAME]"),
        ("/go", "go there"),
    ]


def test_texts_of_toml_are_found_by_key(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[gpu]\ndescription = "Two cards"\nname = "cuda"\n')
    assert texts_of(path) == [("gpu.description", "Two cards")]


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("which model shall answer", 1),
        ("'x' is no size; make room", 2),
        ("{nobody} is not a size; there is no file", 0),
        ("{n:.1f} tokens/s", 1),
        ("the download goes on where it was", 1),
    ],
)
def test_avoided_phrases_of_a_message(text: str, n: int) -> None:
    assert len(list(in_message(text))) == n


def test_avoided_phrases_of_docstrings_and_comments() -> None:
    assert len(list(in_docstring("Give what nobody asked for."))) == 2
    assert list(in_docstring("Return `nobody`; None if there is none.")) == []
    source = '"""A module."""\n\nX = 1  # for ever\n\ndef f():\n    """Tell it."""\n'
    assert [line for line, _ in in_source(source)] == [6, 3]
    for alone in ("X = 1  # for ever\n", 'def f():\n    """Tell it."""\n', '"""Is no `size`."""\n'):
        assert len(list(in_source(alone))) == 1
