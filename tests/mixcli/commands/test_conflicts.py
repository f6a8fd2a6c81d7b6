"""Options that say nothing together: every row of the table is refused by the command line, before anything is loaded."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mixcli.cli import COMMANDS, cli
from mixcli.commands.conflicts import NEEDED, RULES, CheckedCommand, check_once, given, sentence
from mixcli.errors import UsageError
from tests.conftest import Runner

ROWS = [
    (name, option, rule.kind, others)
    for rule in RULES
    for name in rule.commands
    for option, others in rule.faults()
]


def commands() -> Iterator[click.Command]:
    for module, _ in COMMANDS.values():
        command = importlib.import_module(module).command
        yield from command.commands.values() if isinstance(command, click.Group) else [command]


def words(command: click.Command, option: str, folder: Path) -> list[str]:
    """Return what to type for an option or argument of the table."""
    for parameter in command.params:
        if isinstance(parameter, click.Argument) and option in (
            (parameter.metavar or "").strip("[]."),
            (parameter.name or "").upper(),
        ):
            return ["x"]
        if not isinstance(parameter, click.Option) or option not in (
            *parameter.opts,
            *parameter.secondary_opts,
        ):
            continue
        if parameter.is_flag:
            return [option]
        if isinstance(parameter.type, click.Choice):
            return [option, str(parameter.type.choices[-1])]
        if isinstance(parameter.type, click.Path):
            (folder / "file").touch()
            return [option, str(folder / "file")]
        if isinstance(parameter.type, click.IntRange):
            return [option, str(parameter.type.min or 1)]
        return [option, {"--keep-alive": "1m", "--var": "a=b"}.get(option, "1")]
    raise AssertionError(f"{command.name} has no {option}")


def required(command: click.Command) -> list[str]:
    return [
        "x" for parameter in command.params if isinstance(parameter, click.Argument) and parameter.required
    ]


@pytest.mark.parametrize(("name", "option", "kind", "others"), ROWS, ids=str)
def test_each_row_is_refused(
    name: str, option: str, kind: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    command = importlib.import_module(COMMANDS[name][0]).command
    typed = [*required(command), *words(command, option, tmp_path)]
    for other in others:
        shown = other.split() if " " in other else words(command, other, tmp_path)
        typed += [] if kind == NEEDED else shown
    with pytest.raises(UsageError) as refused:
        cli.main([name, *typed], standalone_mode=False)
    assert str(refused.value) == sentence(option, kind, others)


def test_every_command_is_checked() -> None:
    assert [command.name for command in commands() if not isinstance(command, CheckedCommand)] == []


def test_every_command_that_plans_refuses_a_worker_with_a_profile() -> None:
    planning = {
        name
        for name, (module, _) in COMMANDS.items()
        if _has(module, "--worker") and _has(module, "--profile")
    }
    refusing = {name for name, option, _, others in ROWS if (option, others) == ("--worker", ("--profile",))}
    assert planning == refusing


def _has(module: str, option: str) -> bool:
    command = importlib.import_module(module).command
    return any(option in parameter.opts for parameter in command.params)


def test_a_value_is_given_once_and_a_flag_as_often_as_wanted(tmp_path: Path) -> None:
    for command in commands():
        for parameter in command.params:
            if (
                not isinstance(parameter, click.Option)
                or parameter.multiple
                or parameter.name == "print_completion"
            ):
                continue
            typed = words(command, parameter.opts[-1], tmp_path)
            context = click.Context(command, info_name="mixcli")
            _, _, order = command.make_parser(context).parse_args([*typed, *typed, *required(command)])
            if parameter.is_flag:
                check_once(order)
                continue
            with pytest.raises(UsageError, match=r"^--[a-z-]+ is given twice; pass it once$"):
                check_once(order)


@pytest.mark.parametrize(
    ("args", "called"),
    [
        (["pull", ""], "MODEL"),
        (["import", "", "--name", "x"], "PATH"),
        (["import", "x.gguf", "--name", ""], "--name"),
        (["default", ""], "MODEL"),
        (["convert", ""], "SOURCE"),
        (["convert", "x", "-o", ""], "--output"),
        (["run", "-f", "", "x"], "--file"),
        (["run", "-m", "", "x"], "--model"),
        (["profiles", "show", ""], "NAME"),
        (["sessions", "rm", "--yes", ""], "NAMES"),
        (["sessions", "rename", "x", ""], "NEW_NAME"),
        (["pull", "demo", "--quant="], "--quant"),
    ],
)
def test_an_empty_word_where_a_name_or_a_file_is_wanted(args: list[str], called: str) -> None:
    with pytest.raises(UsageError, match=f"^{called} is empty; check that the shell variable is set$"):
        cli.main(args, standalone_mode=False)


def test_an_empty_text_is_a_text() -> None:
    command = importlib.import_module(COMMANDS["run"][0]).command
    with command.make_context("run", ["", "--system", ""]):
        pass


def test_only_the_command_line_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    command = importlib.import_module(COMMANDS["run"][0]).command
    monkeypatch.setenv("MIXCLI_PROFILE", "mac")
    monkeypatch.setenv("MIXCLI_OFFLINE", "1")
    with command.make_context("run", ["x", "--endpoint", "http://127.0.0.1:1/v1", "--no-stream"]) as context:
        assert {"--endpoint", "--no-stream"} == {
            one for one in given(context) if " " not in one and one.startswith("-")
        }
    with command.make_context("run", ["x", "--profile", "auto", "--worker", "here:1"]):
        pass  # auto is this machine, as without it
    with command.make_context("run", ["x", "--choice", "a,b", "--seed", "1", "--endpoint", "http://h/v1"]):
        pass  # another server may sample its labels


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "-m", "a", "--model", "b", "x"], "--model is given twice; pass it once"),
        (["run", "-v", "a=1", "-v", "a=2", "-t", "{template}", "x"], "-v a is given twice"),
        (
            ["run", "-v", "naem=1", "-t", "{template}", "x"],
            "-v naem: the template has no {{ naem }}; did you mean name?",
        ),
        (["run", "--worker", "h:1", "--worker", "h:1", "x"], "--worker h:1 is given twice"),
        (["plan", "mixtral:Q8_0", "--quant", "Q4_K_M"], "both name a quant"),
        (["pull", "demo", "--dry-run"], "--dry-run has no effect on demo, which is made on this machine"),
        (["pull", "demo", "--name", "mine"], "--name has no effect on demo"),
        (["batch", "x", "--json", "--choice", "a,b", "--eval", "g"], "--json has no effect without --output"),
        (["batch", "x", "--keep", "id"], "--keep id has no effect: every result has the record's id"),
        (["run", "-"], "- is not a prompt; remove it: piped text is read without it"),
        (["chat", "-"], "- is not a prompt; remove it"),
        (["sessions", "list", "--json", "-q", "-q", "--json", "x"], "unexpected argument"),
    ],
)
def test_what_depends_on_values_is_refused_too(
    mixcli: Runner, tmp_path: Path, args: list[str], words: str
) -> None:
    (tmp_path / "t.txt").write_text("Greet {{ name }}")
    places = {"{template}": str(tmp_path / "t.txt"), "{folder}": f"{tmp_path}/"}
    done = mixcli(*(places.get(one, one) for one in args))
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
