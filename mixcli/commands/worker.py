"""mixcli worker: share this machine's memory and processors with mixcli on another one."""

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common
from mixcli.system.console import console


@click.command("worker", cls=CheckedCommand)
@click.option(
    "--listen",
    default="127.0.0.1:50052",
    show_default=True,
    metavar="HOST:PORT",
    help="Address to listen on.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads to use. Default: all cores."
)
@common
def command(listen: str, threads: int | None) -> None:
    """Share this machine's GPUs, or its CPU and memory, with another machine until Ctrl-C.

    On the other machine, pass --worker HOST:PORT to plan, run, chat or serve. The connection has no password and no encryption: beyond
    loopback, use it only on a network that you trust.
    """
    from mixcli.client.worker import serve_memory
    from mixcli.client.worker_record import recorded
    from mixcli.system.hardware import physical_cores
    from mixcli.system.worker_address import listening_address, worker_address

    listen = worker_address(listen)
    address, _ = listening_address(listen)
    if not address.startswith("127."):
        console.warn(
            f"no password, no encryption: any machine that can connect to {listen} can use this memory "
            "and crash this process"
        )
    console.note(f"worker listening on {listen}; stop it with Ctrl-C")
    with recorded(listen, address):
        serve_memory(listen, threads or physical_cores())
