"""Tables and sentences on a terminal, as wide as it is."""

import io
import os
import re

import pytest
from rich.console import Console

from mixcli.system.console import console
from mixcli.system.tables import drawn
from mixcli.system.wrapping import wrapped

NAME = "ministral-3-14b-reasoning"
WORDS = "Q4_K_M, 100 to 140 tok/s, as far as rates are known"


@pytest.mark.parametrize("width", [60, 2 * len(NAME) - 1, len(NAME) + 9])
def test_a_models_name_stays_in_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w", encoding="utf-8") as out:
        monkeypatch.setattr("sys.stdout", out)
        console.table(("MODEL", "LICENSE", "SUITS"), [(NAME, "Apache-2.0 " * 3, WORDS)])
        out.flush()
        text = terminal.read(4096).decode()
    assert NAME in text
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= width


def drawn_lines(width: int, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table on a terminal of this width, without spaces at their ends."""
    out = io.StringIO()
    Console(file=out, width=width).print(drawn(columns, rows, width))
    return [line.rstrip() for line in out.getvalue().splitlines()]


COLUMNS = ("MODEL", "PARAMETERS", "CONTEXT", "KIND", "LICENSE")
ROWS = [
    ("dolphin-mixtral-8x22b", "140.6B/39.1B", "65536", "uncensored", "Apache-2.0"),
    ("mistral", "7.2B", "32768", "instruct", ""),
]


def test_words_are_whole_in_a_table_or_its_rows_are_blocks() -> None:
    wide = drawn_lines(80, COLUMNS, ROWS)
    assert [len(line.split()) for line in wide] == [5, 5, 4]
    narrow = drawn_lines(60, COLUMNS, ROWS)  # a long word is broken after a hyphen or a slash
    assert "dolphin-mixtral-8x22b  140.6B/" in narrow[2]
    assert narrow[3].split() == ["39.1B", "ed", "2.0"]
    cell = drawn_lines(24, ("", ""), [("name", "what-is-the-capital-of-france")])
    assert cell == ["name  what-is-the-", "      capital-of-france"]
    assert drawn_lines(40, COLUMNS, ROWS) == [
        "MODEL",
        "dolphin-mixtral-8x22b",
        "  PARAMETERS 140.6B/39.1B  CONTEXT 65536",
        "  KIND uncensored  LICENSE Apache-2.0",
        "mistral",
        "  PARAMETERS 7.2B  CONTEXT 32768",
        "  KIND instruct",
    ]
    long = [("mistral", "7.2B", "32768", "an instruct model that thinks before it answers", "")]
    assert drawn_lines(30, COLUMNS, long)[3:] == [
        "  CONTEXT 32768",
        "  KIND an instruct model that",
        "  thinks before it answers",
    ]


def test_a_page_of_two_columns_is_no_table_of_blocks() -> None:
    assert drawn_lines(20, ("", ""), [("sha256", "a" * 20), ("size", "1 GB")]) == [
        f"sha256  {'a' * 12}",
        f"        {'a' * 8}",
        "size    1 GB",
    ]


def test_a_sentence_is_broken_between_words_and_a_command_stays_whole() -> None:
    text = "mixcli: not installed; `mixcli pull mixtral` downloads it"
    assert wrapped(text, 30).split("\n") == [
        "mixcli: not installed;",
        "`mixcli pull mixtral`",
        "downloads it",
    ]
    assert wrapped("         experts 20, kv 1", 20) == "         experts 20,\n         kv 1"
    assert wrapped(f"see {'/path' * 10} there", 20) == f"see\n{'/path' * 10}\nthere"
    assert wrapped("日本語 日本語", 10) == "日本語\n日本語"
    assert wrapped("Remove it? [y/N]: ", 10) == "Remove it?\n[y/N]: "
    assert wrapped("short", 10) == "short"


def test_notes_and_errors_are_wrapped_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w", encoding="utf-8") as err:
        monkeypatch.setattr("sys.stderr", err)
        console.error("model 'dmo' not found; did you mean demo?")
        shown = re.sub(r"\x1b\[[0-9;]*m", "", terminal.read(4096).decode())
    assert shown.splitlines() == ["mixcli: model 'dmo'", "not found; did you", "mean demo?"]
    monkeypatch.setattr("sys.stderr", pipe := io.StringIO())
    console.error("model 'dmo' not found; did you mean demo?")
    assert pipe.getvalue() == "mixcli: model 'dmo' not found; did you mean demo?\n"


def test_a_bar_in_a_narrow_terminal_is_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, parts in ((80, "━"), (40, "50%")):
        monkeypatch.setenv("COLUMNS", str(columns))
        ours, theirs = os.openpty()
        with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w", encoding="utf-8") as err:
            monkeypatch.setattr("sys.stderr", err)
            with console.progress("checking demo-Q8_0.gguf", unit="bytes", is_still=True) as bar:
                bar.update(1 << 29, 1 << 30)
            shown = terminal.read(1 << 16).decode()
        assert (parts in shown, "…" in shown) == (True, False)
