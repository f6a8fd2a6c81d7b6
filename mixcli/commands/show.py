"""mixcli show: show the facts of a model."""

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import NAME_OR_PATH, common, json_option
from mixcli.console import console


@click.command("show", cls=Command)
@click.argument("model", required=False, type=NAME_OR_PATH)
@json_option
@common
def command(model: str | None, as_json: bool) -> None:
    """Show MODEL's parameters, experts, context, tensor types, license and source."""
    from mixcli.hub.card import card, for_people
    from mixcli.hub.store import find

    facts = card(find(model))
    if as_json:
        console.data(facts)
    else:
        console.table(("", ""), for_people(facts))
