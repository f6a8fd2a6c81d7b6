"""docs/help.md, and what the commands say of themselves."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from mixcli.cli import COMMANDS, GROUPS, cli
from mixcli.system.environment import OTHER_VARIABLES, VARIABLES
from tests.conftest import ROOT
from tests.messages import PACKAGES

PAGE = ROOT / "docs" / "help.md"


def test_the_page_is_what_help_says() -> None:
    """In a process of its own: click keeps the help option that a command's first context asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.help_page"], capture_output=True, check=True, cwd=ROOT
    )
    assert PAGE.read_bytes() == done.stdout, "run `make help`"


def test_every_command_is_listed_once() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_under_its_name(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name


VARIABLE = re.compile(r"(MIXCLI|HF|HUGGINGFACE|HUGGING_FACE|OLLAMA|LMSTUDIO)_[A-Z_]+")
FOR_TESTS = {"MIXCLI_SELFTEST_CRASH"}


def _variables_in_the_code() -> Iterator[str]:
    """Yield every text of the code that is the name of a variable of mixcli, Hugging Face, Ollama or LM Studio."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            source = path.read_text("utf-8")
            if path.name != "environment.py" and VARIABLE.search(source):
                for node in ast.walk(ast.parse(source)):
                    if isinstance(node, ast.Constant) and VARIABLE.fullmatch(str(node.value)):
                        yield str(node.value)


def test_every_environment_variable_is_documented() -> None:
    read = set(_variables_in_the_code())
    words = " ".join((*VARIABLES, *OTHER_VARIABLES, *OTHER_VARIABLES.values()))
    assert sorted(name for name in read - FOR_TESTS if name not in words.replace(";", "").split()) == []
    assert sorted(VARIABLES.keys() - read) == [], "read by nothing"
