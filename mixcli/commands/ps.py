"""mixcli ps: list loaded models."""

from collections.abc import Mapping

import click

from mixcli.client.process import STOPPING, UNRESPONSIVE, hosts
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

# of those whose answer does not hold it
UNLOADS: Mapping[str, str] = {UNRESPONSIVE: "with `mixcli stop`", STOPPING: "now"}


@click.command("ps", cls=CheckedCommand)
@json_option
@common
def command(as_json: bool) -> None:
    """List loaded models."""
    running = hosts()
    rows = [
        (
            host.model or "?",
            str(host.pid),
            "?" if host.size is None else format_bytes(host.size),
            "?" if host.n_ctx is None else str(host.n_ctx),
            host.status,
            UNLOADS.get(host.status) or ("when unused" if host.busy else _left(host.expires_in)),
        )
        for host in running
    ]
    columns = ("MODEL", "PID", "SIZE", "CONTEXT", "STATE", "UNLOADS")
    console.result(
        [host.to_json() for host in running], columns, rows, as_json=as_json, empty="no model is loaded"
    )


def _left(expires_in: float | None) -> str:
    return "with `mixcli stop`" if expires_in is None else f"in {expires_in:.0f} s"
