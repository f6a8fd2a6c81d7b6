"""mixcli help: the help of mixcli or of a command."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.text import clean, did_you_mean


@click.command("help", cls=CheckedCommand)
@click.argument("words", nargs=-1, metavar="[COMMAND]...")
@common
def command(words: tuple[str, ...]) -> None:
    """Show the help of mixcli, or of COMMAND: `mixcli help pull`, `mixcli help profiles new`."""
    context = click.get_current_context().find_root()
    for word in words:
        group = context.command
        names = group.list_commands(context) if isinstance(group, click.Group) else []
        found = group.get_command(context, word) if isinstance(group, click.Group) and word in names else None
        if found is None:
            hint = did_you_mean(word, names, f"`{context.command_path} --help` lists them")
            raise UsageError(f"no such command {clean(word)!r}; {hint}")
        context = click.Context(found, info_name=word, parent=context)
    console.line(context.command.get_help(context))
