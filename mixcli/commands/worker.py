"""mixcli worker: lend this machine's memory and processors to mixcli on another one."""

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import common
from mixcli.console import console

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@click.command("worker", cls=Command)
@click.option(
    "--listen", default="127.0.0.1:50052", show_default=True, metavar="HOST:PORT", help="Where to listen."
)
@click.option("--threads", type=click.IntRange(min=1), help="Processor threads to lend; default all cores.")
@common
def command(listen: str, threads: int | None) -> None:
    """Lend this machine's GPUs, or its processor and memory, until Ctrl-C.

    On the other machine say --worker HOST:PORT to plan, run or chat. The connection has neither password nor encryption: beyond
    loopback use it only in a network where you trust everybody.
    """
    from mixcli.hardware import physical_cores
    from mixcli.insight.lend import lend
    from mixcli.words import address

    listen = address(listen)
    host = listen.rpartition(":")[0].strip("[]")
    if host not in LOOPBACK:
        console.warn(
            f"anyone who reaches {listen} can use this machine's memory and crash this process; "
            "there is no password and no encryption"
        )
    console.note(f"lending at {listen}; Ctrl-C ends it")
    lend(listen, threads or physical_cores())
