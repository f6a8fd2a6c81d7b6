"""mixcli search: the catalog."""

from dataclasses import asdict

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import common, json_option
from mixcli.console import console


@click.command("search", cls=Command)
@click.argument("words", nargs=-1)
@json_option
@common
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List the models that mixcli knows by name, those that WORDS occur in, and which of them fit into this machine's memory.

    Nothing is asked of the network. Any repository of the Hugging Face Hub can be pulled as org/repo as well.
    """
    from mixcli.hub.catalog import catalog
    from mixcli.hub.fit import fits
    from mixcli.hub.store import models

    have = {model.manifest.name for model in models() if model.manifest}
    wanted = [word.lower() for word in words]
    found = [
        entry
        for entry in catalog().values()
        if all(
            word in f"{entry.name} {entry.description} {entry.kind} {entry.alignment}".lower()
            for word in wanted
        )
    ]
    if as_json:
        console.data([{**asdict(entry), "fits": fits(entry), "here": entry.name in have} for entry in found])
        return
    if not found:
        console.note(
            f"the catalog has nothing with {' '.join(words)}; any org/repo of the Hub can be pulled as well"
        )
        return
    console.table(
        ("MODEL", "PARAMETERS", "CONTEXT", "KIND", "LICENCE", "BEST THAT FITS", ""),
        [
            (
                entry.name,
                f"{entry.parameters:g}B ({entry.active:g}B active)",
                str(entry.context),
                f"{entry.kind}, {entry.alignment}" if entry.kind != "base" else "base",
                entry.licence,
                fits(entry) or "nothing",
                "here" if entry.name in have else "",
            )
            for entry in found
        ],
    )
