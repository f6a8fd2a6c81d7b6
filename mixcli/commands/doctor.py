"""mixcli doctor: is everything here that a model needs?"""

from dataclasses import asdict

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import common, json_option
from mixcli.console import console
from mixcli.errors import MixcliError


@click.command("doctor", cls=Command)
@json_option
@common
def command(as_json: bool) -> None:
    """Look at Python, llama.cpp, devices, memory, disk and store; each line says ok, warn or fail and what to do next."""
    from mixcli.insight.doctor import findings

    found = list(findings())
    if as_json:
        console.data([asdict(one) for one in found])
    else:
        console.table(("check", "state", "what to know"), [(one.what, one.state, one.words) for one in found])
    if failed := [one.what for one in found if one.state == "fail"]:
        raise MixcliError(
            f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}; the table says what to do"
        )
