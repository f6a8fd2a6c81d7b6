"""mixcli ps: list loaded models."""

from collections.abc import Mapping

import click

from mixcli.client.process import STOPPING, UNRESPONSIVE, hosts
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes

# of those that do not say it themselves
STAYS: Mapping[str, str] = {UNRESPONSIVE: "until `mixcli stop`", STOPPING: "a moment"}


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
            STAYS.get(host.status) or ("in use" if host.busy else _left(host.expires_in)),
        )
        for host in running
    ]
    columns = ("MODEL", "PID", "SIZE", "CONTEXT", "STATE", "UNTIL")
    console.result(
        [host.to_json() for host in running], columns, rows, as_json=as_json, empty="no model is loaded"
    )


def _left(expires_in: float | None) -> str:
    return "until stopped" if expires_in is None else f"{expires_in:.0f} s"
