"""mixcli show: show the facts of a model."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option, model_argument
from mixcli.errors import NotInstalled
from mixcli.system.console import console


@click.command("show", cls=CheckedCommand)
@model_argument
@json_option
@common
def command(model: str | None, as_json: bool) -> None:
    """Show MODEL's parameters, experts, context, tensor types, license and source.

    Without MODEL, the default model is shown, or the only one that is installed. If MODEL is in the catalog but not installed, print its license, context, sizes and the command that downloads it.
    """
    from mixcli.store.model_info import model_info
    from mixcli.store.store import find

    try:
        facts = model_info(find(model))
    except NotInstalled as missing:
        _show_catalog(missing, as_json)
        return
    console.result(facts.to_data(), ("", ""), facts.to_rows(), as_json=as_json)


def _show_catalog(missing: NotInstalled, as_json: bool) -> None:
    """Show a model of the catalog; raises `missing` where it is of no catalog."""
    from mixcli.planning.load_options import LoadOptions
    from mixcli.planning.machines import target_of
    from mixcli.pull.catalog_info import catalog_info
    from mixcli.store.catalog import catalog
    from mixcli.store.reference import Reference
    from profiles.request import PlanRequest

    name = Reference.parse(missing.name).name if missing.name else ""
    if name not in catalog():
        raise missing
    facts = catalog_info(catalog()[name], target_of(LoadOptions(PlanRequest()), measure=False))
    console.result(facts.to_data(), ("", ""), facts.to_rows(), as_json=as_json)
