"""mixcli chat: talk with a model in the terminal."""

import click

from mixcli.commands.options import (
    Sampling,
    common,
    loading_options,
    machine_options,
    model_option,
    sampling_options,
    wish_of,
)
from mixcli.words import seconds

TEMPERATURE = 0.7


@click.command("chat")
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@sampling_options
@loading_options
@machine_options
@common
def command(
    model: str | None,
    system: str | None,
    sampling: Sampling,
    n_ctx: int | None,
    profile: str | None,
    vram: str | None,
    ram: str | None,
    kv: str | None,
    workers: tuple[str, ...],
    keep_alive: str,
) -> None:
    """Talk with a model. Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else there is."""
    from mixcli.chat.repl import Repl
    from mixcli.launch import load

    stay = seconds(keep_alive)
    wish = wish_of(n_ctx, profile, vram, ram, kv, workers)
    Repl(lambda: load(model, wish, stay), system, sampling.body(temperature=TEMPERATURE)).run()
