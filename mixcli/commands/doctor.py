"""mixcli doctor: check this machine for problems."""

from dataclasses import asdict

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.errors import MixcliError
from mixcli.system.console import console


@click.command("doctor", cls=CheckedCommand)
@json_option
@common
def command(as_json: bool) -> None:
    """Check the installation, llama.cpp, devices, memory, limits, disk and the model store; each line shows ok, warn or fail and the next step."""
    from mixcli.planning.doctor import findings

    found = list(findings())
    rows = ((one.what, one.state, one.words) for one in found)
    console.result([asdict(one) for one in found], ("check", "state", "details"), rows, as_json=as_json)
    if failed := [one.what for one in found if one.state == "fail"]:
        raise MixcliError(
            f"{len(failed)} of {len(found)} checks failed: {', '.join(failed)}; see the table for what to do"
        )
