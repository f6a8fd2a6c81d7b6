"""docs/help.md, and what the commands say of themselves."""

from pathlib import Path

import click
import pytest

from mixcli.cli import COMMANDS, cli
from tests.help_page import help_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "help.md"


def test_the_page_is_what_help_says() -> None:
    assert PAGE.read_text("utf-8") == help_page(), "run `make help`"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there_under_its_name(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.name == name
