"""mixcli default: show or set the default model."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common
from mixcli.errors import UsageError
from mixcli.system.console import console


@click.command("default", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH)
@click.option("--clear", is_flag=True, help="Clear the default model.")
@common
def command(model: str | None, clear: bool) -> None:
    """Show or set the default model. A named model and MIXCLI_MODEL override it."""
    from mixcli.store import default_model, store

    if clear:
        default_model.set_to(None)
    elif model:
        label = store.find(model).label
        default_model.set_to(label)
        console.note(f"default model: {label}")
    elif chosen := default_model.get():
        console.line(chosen)
    else:
        raise UsageError("no default model is set; `mixcli default MODEL` sets one")
