"""mixcli top: monitor loaded models and servers."""

import sys

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, json_option
from mixcli.system.console import console

FIRST_LOOK = 0.3  # seconds that a picture waits for answers; later ones are in the next picture
QUIT = ("q", "Q", "\x04")


@click.command("top", cls=CheckedCommand)
@json_option
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two updates.",
)
@common
def command(as_json: bool, interval: float) -> None:
    """Monitor loaded models and servers: requests, tok/s, KV cache and memory.

    On a terminal the display is updated until you press q. In a pipe it is printed once.
    """
    from mixcli.system.screen import can_draw

    if as_json or not can_draw():
        _print_once(as_json=as_json)
    else:
        _watch(interval)


def _print_once(*, as_json: bool) -> None:
    from mixcli.monitor.picture import NOTHING, drawn
    from mixcli.monitor.snapshot import Monitor

    snapshot = Monitor().look()
    if not as_json and not snapshot.models and not snapshot.ports:
        console.note(NOTHING)
        return
    width = console.width(sys.stdout)
    console.page(snapshot.to_json(), lambda: console.picture(drawn(snapshot, width)), as_json=as_json)


def _watch(interval: float) -> None:
    """Draw again and again until q is pressed; Ctrl-C raises KeyboardInterrupt."""
    from mixcli.monitor.picture import cut, drawn
    from mixcli.monitor.snapshot import Monitor
    from mixcli.system.screen import held_screen

    monitor = Monitor()
    footer = f"q quits · updated every {interval:g} s"
    with held_screen() as screen:
        while True:
            snapshot = monitor.look(FIRST_LOOK)
            width, height = screen.size
            screen.draw(cut(drawn(snapshot, width, footer), height))
            if any(key in QUIT for key in screen.wait(interval)):
                return
