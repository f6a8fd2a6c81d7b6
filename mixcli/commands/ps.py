"""mixcli ps: list loaded models."""

import click

from mixcli.client.process import hosts
from mixcli.client.worker_record import worker_records
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.monitor.snapshot import unloads
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes


@click.command("ps", cls=CheckedCommand)
@json_option
@common
def command(as_json: bool) -> None:
    """List loaded models, and your workers on this machine with their clients."""
    running, workers = hosts(), [worker.to_json() for worker in worker_records()]
    rows = [
        (
            host.model or "?",
            str(host.pid),
            "?" if host.size is None else format_bytes(host.size),
            "?" if host.n_ctx is None else str(host.n_ctx),
            host.status,
            unloads(host),
        )
        for host in running
    ]
    rows += [
        (
            f"worker at {worker['worker']}",
            str(worker["pid"]),
            "-",
            "-",
            f"in use by {worker['client']}" if worker["client"] else str(worker["status"]),
            "-",
        )
        for worker in workers
    ]
    columns = ("MODEL", "PID", "SIZE", "CONTEXT", "STATE", "UNLOADS")
    console.result(
        [*(host.to_json() for host in running), *workers],
        columns,
        rows,
        as_json=as_json,
        empty="no model is loaded",
    )
