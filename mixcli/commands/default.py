"""mixcli default: show or set the default model."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common, json_option
from mixcli.errors import UsageError
from mixcli.system.console import console


@click.command("default", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH)
@click.option("--clear", is_flag=True, help="Clear the default model.")
@json_option
@common
def command(model: str | None, clear: bool, as_json: bool) -> None:
    """Show or set the default model. A named model and MIXCLI_MODEL override it."""
    from mixcli.store import default_model, store

    if clear:
        default_model.set_to(None)
    elif model:
        label = store.find(model).label
        default_model.set_to(label)
        console.note(f"default model: {label}")
    elif as_json:
        console.data({"model": default_model.get()})
    elif chosen := default_model.get():
        console.line(chosen)
    else:
        raise UsageError("no default model is set; `mixcli default MODEL` sets one")
