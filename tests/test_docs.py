"""README.md and docs/: their commands exist, their links resolve, and what no machine changes is printed as they show it."""

import re
import shlex
from pathlib import Path

import click
import pytest

from docs.outputs import BLOCK, FIXED, PAGES, commands_of, output_of
from mixcli.cli import cli
from tests.conftest import ROOT

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
SPAN = re.compile(r"`(mixcli [^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"[A-Z_]+|.*\.\.\.")
MAX_LINES, MAX_WORDS = 150, 30  # of the README, and of a sentence in it
WRITTEN = [page for page in PAGES if page.name != "help.md"]  # by people, not by click


def shell_commands(text: str) -> list[list[str]]:
    """Return the words of every `mixcli` command in a piece of shell, without redirections."""
    text = re.sub(r"(^|\s)#\s.*$", "", text.replace("\\\n", " "), flags=re.M)
    words = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n`")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    found: list[list[str]] = []
    current: list[str] | None = None  # the words of a program, mixcli or another one
    after_redirection = False
    for word in words:
        if after_redirection:
            after_redirection = False
        elif set(word) <= set("<>&") - {""} and set(word) & set("<>"):
            after_redirection = True
            if current and current[-1] in ("1", "2"):
                current.pop()
        elif set(word) <= set("();|&\n`"):
            current = None
        elif current is not None:
            current.append(word)
        elif word == "mixcli":
            current = []
            found.append(current)
        elif word not in ("do", "then", "else", "if") and "=" not in word:
            current = []
    return found


def commands(page: str) -> list[list[str]]:
    """Return every `mixcli` command of a page: in shell blocks, console blocks and code spans."""
    found = []
    for kind, body in FENCE.findall(page):
        if kind == "sh":
            found += shell_commands(body)
        elif kind == "console":
            found += [words for command in commands_of(body) for words in shell_commands(command)]
    return found + [words for span in SPAN.findall(FENCE.sub("", page)) for words in shell_commands(span)]


def check(words: list[str]) -> None:
    """Parse a command as click does, without running it; click.UsageError says what is wrong."""
    command: click.Command = cli
    context = click.Context(cli, info_name="mixcli")
    while True:
        options, words, _ = command.make_parser(context).parse_args(list(words))
        for parameter in command.params:
            for value in _values(options.get(parameter.name or "")):
                if isinstance(parameter.type, click.Choice | click.IntRange | click.FloatRange):
                    parameter.type.convert(value, parameter, context)
        if not isinstance(command, click.Group) or not words:
            break
        name, *words = words
        inner = command.get_command(context, name)
        if inner is None:
            raise click.UsageError(f"there is no command {name}")
        command, context = inner, click.Context(inner, info_name=name, parent=context)
    if words:
        raise click.UsageError(f"unexpected: {words}")


def _values(value: object) -> list[object]:
    values = value if isinstance(value, list | tuple) else [value]
    return [one for one in values if isinstance(one, str) and not PLACEHOLDER.fullmatch(one)]


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_commands_exist_with_their_options(path: Path) -> None:
    wrong = []
    for words in commands(path.read_text("utf-8")):
        try:
            check(words)
        except click.ClickException as error:
            wrong.append(f"mixcli {shlex.join(words)}: {error.format_message()}")
    assert wrong == []


def test_many_commands_are_found_and_a_wrong_one_is_seen() -> None:
    assert sum(len(commands(path.read_text("utf-8"))) for path in WRITTEN) > 100
    for wrong in (
        "mixcli plum demo",
        "mixcli plan demo --prefer fast",
        "mixcli plan demo extra",
        "mixcli ps --jsn",
    ):
        with pytest.raises(click.UsageError):
            check(shell_commands(f"x=$(echo hi | {wrong} 2> log) && ls")[0])


def slug(heading: str) -> str:
    """Return a heading's anchor, as GitHub and mkdocs make it."""
    text = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_links_resolve(path: Path) -> None:
    wrong = []
    for link in LINK.findall(FENCE.sub("", path.read_text("utf-8"))):
        target, _, anchor = link.partition("#")
        if re.match(r"https?:", link):
            continue
        there = path.parent / target if target else path
        if not there.exists():
            wrong.append(link)
        elif anchor:
            text = FENCE.sub("", there.read_text("utf-8"))
            if anchor not in map(slug, re.findall(r"^#+ (.*)$", text, re.M)):
                wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize("name", ["architecture", "contributing"])
def test_files_and_names_in_them_exist(name: str) -> None:
    text = FENCE.sub("", (ROOT / "docs" / f"{name}.md").read_text("utf-8"))
    paths = set(re.findall(r"`((?:mixcli|quantize|profiles|tests|docs)/[\w/.-]*)`", text))
    assert len(paths) > 5
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
    named = [
        (symbols, path) for symbols, path in re.findall(r"((?:`\w+`(?:, | and )?)+) in `([\w/]+\.\w+)`", text)
    ]
    for symbols, path in named:
        source = (ROOT / path).read_text("utf-8")
        assert [one for one in re.findall(r"\w{4,}", symbols) if not re.search(rf"\b{one}\b", source)] == []


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M))
    assert named == {path.name for path in PAGES} - {"README.md"}


def sentences(page: str) -> list[str]:
    """Return the sentences of a page's prose, without code, tables, headings and pictures."""
    prose = re.sub(r"^(\||#|!).*$", "\n", FENCE.sub("\n\n", page), flags=re.M)
    prose = LINK.sub("]", re.sub(r"^- ", "\n", prose, flags=re.M))
    return [
        one for part in prose.split("\n\n") for one in re.split(r"(?<=[.!?:])\s", part.replace("\n", " "))
    ]


def test_the_readme_is_short_and_so_are_its_sentences() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert text.count("\n") <= MAX_LINES
    assert [one for one in sentences(text) if len(one.split()) > MAX_WORDS] == []


FIXED_COMMANDS = {
    command
    for path in PAGES
    for block in BLOCK.findall(path.read_text("utf-8"))
    for command in commands_of(block)
    if FIXED.match(command)
}


@pytest.mark.parametrize("command", sorted(FIXED_COMMANDS))
def test_what_no_machine_changes_is_printed_as_shown(command: str, tmp_path: Path) -> None:
    shown = f"$ {command}\n{output_of(command, tmp_path)}\n"
    pages = [path.read_text("utf-8") for path in PAGES]
    assert any(shown in page for page in pages), "run `make outputs`"
