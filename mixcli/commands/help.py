"""mixcli help: the help of mixcli or of a command."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.usage_hints import no_such_command


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
            raise UsageError(no_such_command(word, names, context.command_path))
        context = click.Context(found, info_name=word, parent=context)
    console.line(context.command.get_help(context))
