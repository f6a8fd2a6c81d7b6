"""Write docs/help.md: the real `--help` of every command."""

import sys

import click

from mixcli.cli import COMMANDS, cli

INTRODUCTION = """# Commands

What `mixcli --help` and every command's own `--help` say. Written by `make help`; a test keeps it true.
"""


def help_page() -> str:
    """Give the whole page."""
    names = cli.context_settings[
        "help_option_names"
    ]  # as the real command line has them; click keeps the first it is given
    root = click.Context(
        cli, info_name="mixcli", terminal_width=100, max_content_width=100, help_option_names=names
    )
    sections = [("mixcli", cli.get_help(root))]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        context = click.Context(
            command, info_name=name, parent=root, terminal_width=100, max_content_width=100
        )
        sections.append((f"mixcli {name}", command.get_help(context)))
    return INTRODUCTION + "".join(f"\n## {title}\n```\n{text}\n```\n" for title, text in sections)


if __name__ == "__main__":
    sys.stdout.write(help_page())
