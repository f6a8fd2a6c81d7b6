"""Every number that any command takes, spelled as no number should be: a sentence and exit 2, or the number that it is; never a traceback."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from mixcli.cli import _exit_code_of, cli
from tests.conftest import _environment
from tests.mixcli.system.test_any_bytes import SHORT, arguments
from tests.support.forked import Done, Forked, commands, forked

HOSTILE = ["nan", "inf", "-inf", "-1", "0", "1e99", "1e400", "", " ", " 5 ", "5 GB", "١٢", "²", "1" + "0" * 400, "0x10", "1_0", "true", "-0.0", "None", "1,5"]  # fmt: skip
NUMBERS = ("SIZE", "TIME", "HOST:PORT", "P")  # metavars of texts that hold a number
NO_PORT = ["127.0.0.1", "127.0.0.1:", ":", ":0", "x:nan", "x:-1", "x:65536", "x:1e3", "[::1", "[::1]:99999", "x:١٢", "x:" + "9" * 400]  # fmt: skip


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    home = tmp_path_factory.mktemp("numbers") / "home"
    with forked(home, {**_environment(home), "MIXCLI_OFFLINE": "1"}) as process:
        yield process


def holds_a_number(option: click.Parameter) -> bool:
    kinds = click.types.IntParamType | click.types.FloatParamType
    return isinstance(option.type, kinds) or option.metavar in NUMBERS


def cases() -> Iterator[Any]:
    for words, command in commands():
        for option in command.params:
            if isinstance(option, click.Option) and holds_a_number(option):
                rest = [*SHORT.get(words[0], []), *arguments(command)]
                values = NO_PORT if option.metavar == "HOST:PORT" else HOSTILE
                yield pytest.param(
                    [*words, *rest, option.opts[-1]], values, id=f"{' '.join(words)} {option.opts[-1]}"
                )


def refused(args: list[str]) -> Done | None:
    """Parse a command line in this process, as the program does; return how it is refused, None where it would run."""
    root = click.Context(cli, info_name="mixcli", **cli.context_settings)
    command = cli.get_command(root, args[0])
    assert command is not None
    if isinstance(command, click.Group):
        return None
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            command.make_context(args[0], args[1:], parent=root)
        except Exception as error:
            return Done(_exit_code_of(error), b"", err.getvalue().encode())
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("args", "values"), [*cases()])
def test_a_number_that_is_none_is_a_sentence(
    lines: Forked, args: list[str], values: list[str], tmp_path: Path
) -> None:
    for value in values:
        done = refused([*args, value]) or lines.run(*args, value, stdin=b"x\n", limit=30)
        assert b"Traceback" not in done.err, f"{value!r}: {done.sentence}"
        assert done.code in (0, 1, 2, 4, 5, 6), f"{value!r}: {done.code} {done.sentence}"
        assert len(done.err) < 1500, f"{value!r}: {done.sentence}"
        assert b"None" not in done.err.replace(value.encode(), b""), done.sentence


@pytest.mark.parametrize("value", ["nan", "١٢", "1" + "0" * 400, ""])
def test_the_program_refuses_as_the_parser_does(lines: Forked, value: str) -> None:
    args = ["plan", "x", "--ctx", value]
    assert refused(args) == lines.run(*args)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["plan", "x", "--for", "99999999+1"], "1 to 16,777,216 each"),
        (["plan", "x", "--ctx", "63"], "'63' is not a whole number from 64 to 4,294,967,295"),
        (
            ["plan", "x", "--ctx", "99999999999"],
            "'99999999999' is not a whole number from 64 to 4,294,967,295",
        ),
        (["plan", "x", "--ctx", "9" * 5000], "is not a whole number from 64 to 4,294,967,295"),
        (["plan", "x", "--ubatch", "1e3"], "'1e3' is not a whole number from 32 to"),
        (["batch", "x", "--window", "0"], "'0' is not a whole number from 1 to 1,024"),
        (["batch", "x", "--abstain", "2"], "--abstain '2': expected a probability from 0 to 1"),
        (["pull", "x", "--min-tps", "nan"], "'nan' is not a number of at least 0.01"),
        (["run", "x", "--abstain", "2"], "'2' is not a number from 0 to 1"),
        (["compare", "x", "y", "--tolerance", "0"], "'0' is not a number above 0 and at most 1"),
        (["serve", "--port", "65536"], "'65536' is not a whole number from 0 to 65,535"),
        (["run", "x", "--max-tokens", "0"], "'0'; use 1 to 2,147,483,647"),
        (["run", "x", "--keep-alive", "999999999h"], "longer than 876,000 h, the limit"),
        (["plan", "x", "--ram", "9999999999GiB"], "1,048,576TiB is the limit"),
        (["plan", "x", "--worker", "host:65536"], "a port from 1 to 65535"),
    ],
)
def test_a_number_out_of_range_is_met_with_the_limit(lines: Forked, args: list[str], words: str) -> None:
    done = lines.run(*args)
    assert done.code == 2
    assert words in done.sentence
