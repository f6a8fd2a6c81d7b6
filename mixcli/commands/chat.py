"""mixcli chat: talk with a model in the terminal."""

from typing import TYPE_CHECKING

import click

from mixcli.commands.options import (
    Sampling,
    common,
    keep_alive_option,
    model_option,
    sampling_options,
    wish_options,
)

if TYPE_CHECKING:
    from mixcli.launch import Wish

TEMPERATURE = 0.7


@click.command("chat")
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@sampling_options
@wish_options
@keep_alive_option
@common
def command(
    model: str | None,
    system: str | None,
    sampling: Sampling,
    wish: "Wish",
    keep_alive: float,
) -> None:
    """Talk with a model. Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else there is."""
    from mixcli.chat.repl import Repl
    from mixcli.launch import load

    Repl(lambda: load(model, wish, keep_alive), system, sampling.body(temperature=TEMPERATURE)).run()
