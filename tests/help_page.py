"""Write docs/help.md: the real `--help` of every command and subcommand, and the environment variables."""

import sys
from collections.abc import Iterator

import click

from mixcli.cli import COMMANDS, cli
from mixcli.system.environment import OTHER_VARIABLES, VARIABLES

INTRODUCTION = """# Commands

What `mixcli --help` and every command's own `--help` print, and the [environment variables](#environment-variables). Written by `make help`;
a test keeps it true.
"""
WIDTH = 100


def help_page() -> str:
    """Return the whole page."""
    # as the real command line has them; click keeps the first it is given
    names = cli.context_settings["help_option_names"]
    root = click.Context(
        cli, info_name="mixcli", terminal_width=WIDTH, max_content_width=WIDTH, help_option_names=names
    )
    sections = [("mixcli", cli.get_help(root))]
    for name in COMMANDS:
        sections += _sections(root, name)
    texts = "".join(f"\n## {title}\n```\n{text}\n```\n" for title, text in sections)
    return INTRODUCTION + texts + _variables()


def _sections(parent: click.Context, name: str) -> Iterator[tuple[str, str]]:
    """Yield title and help of a command, then those of its subcommands."""
    group = parent.command
    assert isinstance(group, click.Group)
    command = group.get_command(parent, name)
    assert command is not None
    context = click.Context(
        command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for one in command.list_commands(context):
            yield from _sections(context, one)


def _variables() -> str:
    rows = (f"| `{name}` | {meaning} |\n" for name, meaning in {**VARIABLES, **OTHER_VARIABLES}.items())
    return "\n## Environment variables\n\n| variable | meaning |\n|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(help_page())
