"""mixcli list: the models in the store."""

from dataclasses import asdict

import click

from mixcli.commands.options import common, json_option
from mixcli.console import console
from mixcli.hub import store
from mixcli.words import size


@click.command("list")
@json_option
@common
def command(as_json: bool) -> None:
    """List the models in the store."""
    found = [(model, model.manifest) for model in store.models() if model.manifest]
    if as_json:
        console.data(
            [{"model": model.label, "path": str(model.path), **asdict(about)} for model, about in found]
        )
        return
    if not found:
        console.note("no models yet; `mixcli pull demo` brings a small one, without the network")
        return
    rows = [(model.label, size(about.size), about.licence, about.created[:10]) for model, about in found]
    console.table(("MODEL", "SIZE", "LICENCE", "SINCE"), rows)
