"""docs/help.md, and what the commands say of themselves."""

import subprocess
import sys

import click
import pytest

from mixcli.cli import COMMANDS, GROUPS, cli
from tests.conftest import ROOT

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
