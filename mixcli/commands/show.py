"""mixcli show: what a model is."""

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import NAME_OR_PATH, common, json_option
from mixcli.console import console


@click.command("show", cls=Command)
@click.argument("model", required=False, type=NAME_OR_PATH)
@json_option
@common
def command(model: str | None, as_json: bool) -> None:
    """Show what MODEL is: parameters, experts, context, types of its tensors, licence, where it came from."""
    from mixcli.hub.card import card, for_people
    from mixcli.hub.store import find

    facts = card(find(model))
    if as_json:
        console.data(facts)
    else:
        console.table(("", ""), for_people(facts))
