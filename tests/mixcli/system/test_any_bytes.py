"""Every text that any command takes, as bytes that are not UTF-8: replaced or kept, never a traceback.

The command lines are made from the command table, so that commands and options of tomorrow are tried too.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from tests.conftest import _environment
from tests.support.forked import Done, Forked, commands, forked

LATIN = b"caf\xe9"
# commands that would go on until they are stopped, or measure this machine for minutes, with what keeps them short
SHORT = {"worker": ["--listen", "nowhere"], "serve": ["-m", "nothing-here"], "tune": ["-m", "nothing-here"]}
FITTING = {"INPUT": "-", "PATH": "nothing.gguf", "SOURCE": "nothing", "TYPE": "Q4_K_M", "QUANT": "Q4_K_M"}


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    home = tmp_path_factory.mktemp("bytes") / "home"
    with forked(home, {**_environment(home), "MIXCLI_OFFLINE": "1"}) as process:
        yield process


def arguments(command: click.Command) -> list[str]:
    """Give something for every argument that a command must have."""
    return [
        FITTING.get(one.make_metavar(click.Context(command)), "nothing-here")
        for one in command.params
        if isinstance(one, click.Argument) and one.required
    ]


def takes_text(parameter: click.Parameter) -> bool:
    kinds = click.types.StringParamType | click.Path
    return isinstance(parameter.type, kinds) or parameter.type.name in ("text", "path")


def cases() -> Iterator[Any]:
    for words, command in commands():
        if isinstance(command, click.Group):
            continue
        rest = [*SHORT.get(words[0], []), *arguments(command)]
        for parameter in command.params:
            if not takes_text(parameter):
                continue
            if isinstance(parameter, click.Argument):
                n = max(1, len(arguments(command)))
                yield pytest.param(
                    [*words, *[LATIN] * n], id=f"{' '.join(words)} {parameter.human_readable_name}"
                )
            else:
                value = b"n=" + LATIN if "=" in (parameter.metavar or "") else LATIN
                yield pytest.param(
                    [*words, *rest, parameter.opts[-1], value], id=f"{' '.join(words)} {parameter.opts[-1]}"
                )


def is_fine(done: Done) -> None:
    assert b"Traceback" not in done.err, done.sentence
    assert done.code in (0, 1, 2, 3, 4, 5, 6), done.sentence
    done.err.decode("utf-8")  # what is said can be read
    done.out.decode("utf-8")


@pytest.mark.parametrize("args", [*cases()])
def test_a_text_of_any_bytes_is_no_bug(lines: Forked, args: list[bytes], tmp_path: Path) -> None:
    is_fine(lines.run(*args, stdin=LATIN + b" \xff\xfe\n", HOME=str(tmp_path)))


def test_bytes_of_an_option_are_counted_once(lines: Forked) -> None:
    done = lines.run("batch", "nothing.jsonl", "--prompt", LATIN, "--choice", b"a,\xe9\xe9")
    told = [line for line in done.sentence.splitlines() if "not UTF-8" in line]
    assert [line.partition(" not UTF-8")[0] for line in told] == [
        "warning: 1 byte of --prompt was",
        "warning: 2 bytes of --choice were",
    ]


@pytest.mark.parametrize(("path", "what"), [("/etc", "a folder"), ("/dev/null", "a device or a pipe")])
def test_a_schema_at_a_path_that_is_not_a_file_is_named_so(lines: Forked, path: str, what: str) -> None:
    done = lines.run("run", "--schema", path, "Hi")
    assert (done.code, f"{path} is {what}; use a text file" in done.sentence) == (2, True), done.sentence
