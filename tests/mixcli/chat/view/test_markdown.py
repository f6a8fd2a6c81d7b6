"""Markdown by the line: what is drawn, that nothing is lost, and that a cut leaves no trace."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from mixcli.chat.view.markdown import Markdown


def drawn(source: str, width: int = 40) -> list[str]:
    markdown = Markdown()
    lines = [line for one in source.split("\n") for line in markdown.line(one)]
    return [row.plain.rstrip() for line in [*lines, *markdown.close()] for row in line.rows(width)]


def ansi(source: str) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200)
    markdown = Markdown()
    with console.capture() as captured:
        for one in source.split("\n"):
            for line in markdown.line(one):
                console.print(line.text)
    return captured.get()


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("# Title", ["Title"]),
        ("plain **bold** *it* `code` ~~gone~~", ["plain bold it code gone"]),
        ("an **open bold", ["an **open bold"]),
        ("[text](http://x.y)", ["text (http://x.y)"]),
        ("- one\n  - two\n* three", ["• one", "  • two", "• three"]),
        ("3. three\n4. four", ["3. three", "4. four"]),
        ("- [ ] open\n- [x] done", ["☐ open", "☑ done"]),
        ("> said", ["▎ said"]),
        ("---", ["─" * 24]),
        ("```python\n# **not bold**\n\tx\n```\n**b**", ["```python", "# **not bold**", "    x", "```", "b"]),
        ("| a | bb |\n|---|---|\n| 1 | `2` |\nafter", ["a  bb", "─  ──", "1  2", "after"]),
        ("| no table", ["| no table"]),
        ("|-|\n|-|", ["|-|", "|-|"]),
        ("2 < 3 && <b>html</b> &amp; snake_case_name", ["2 < 3 && <b>html</b> & snake_case_name"]),
        ("a single\nnewline", ["a single", "newline"]),
    ],
)
def test_what_is_drawn(source: str, rows: list[str]) -> None:
    assert drawn(source) == rows


def test_styles() -> None:
    assert "\x1b[1m" in ansi("**bold**")
    assert "\x1b[94;49mclass\x1b[0m" in ansi("```python\nclass A: pass")
    assert "\x1b[" not in ansi("```\nclass A: pass").splitlines()[1]


def test_a_list_item_hangs_and_a_row_is_never_too_wide() -> None:
    rows = drawn("- " + "word " * 20, 30)
    assert rows[0].startswith("• word") and all(row.startswith("  word") for row in rows[1:])
    assert all(cell_len(row) <= 30 for row in drawn("混合专家" * 30 + " 👩‍🔬" * 9, 30))


def test_an_unfinished_line_changes_nothing() -> None:
    markdown = Markdown()
    for source in ("```", "| a |", "- x", "```py"):
        markdown.preview(source)
    assert markdown.line("# a heading") == Markdown().line("# a heading") and markdown.close() == []


TEXT = st.text(st.sampled_from("ab *_`[]()|#->1.~\\混👩\t"), max_size=60)


@given(st.lists(TEXT, max_size=6), st.integers(20, 50))
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_drawn_within_the_width(sources: list[str], width: int) -> None:
    markdown = Markdown()
    for source in sources:
        for line in [*markdown.preview(source), *markdown.line(source)]:
            assert all(cell_len(row.plain) <= width for row in line.rows(width))
    markdown.close()


WORDS = st.lists(
    st.sampled_from(["word", "a", "**bold**", "`code`", "longer-word", "混合专家"]), min_size=1, max_size=80
)


@given(WORDS, st.sampled_from(["", "- ", "> ", "  ", "1. "]), st.integers(20, 50), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_a_cut_leaves_no_trace(words: list[str], prefix: str, width: int, n_rows: int) -> None:
    source = prefix + " ".join(words)
    halves = Markdown().split(source, width, n_rows)
    if halves is not None:
        head, tail = halves
        assert drawn(head, width) + drawn(tail, width) == drawn(source, width)
        assert len(drawn(head, width)) == n_rows


def test_a_long_paragraph_can_be_cut() -> None:
    for source in ("word " * 200, "- **bold** " * 60, "混合专家模型" * 80):
        assert Markdown().split(source, 40, 5) is not None
