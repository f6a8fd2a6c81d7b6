"""mixcli chat: talk with a model in the terminal."""

import click

from mixcli.commands.options import Sampling, common, loading_options, model_option, sampling_options
from mixcli.words import seconds

TEMPERATURE = 0.7


@click.command("chat")
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@sampling_options
@loading_options
@common
def command(
    model: str | None, system: str | None, sampling: Sampling, n_ctx: int | None, keep_alive: str
) -> None:
    """Talk with a model. Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else there is."""
    from mixcli.chat.repl import Repl
    from mixcli.launch import load
    from profiles.planner import Request

    stay = seconds(keep_alive)
    Repl(
        lambda: load(model, Request(n_ctx=n_ctx), stay), system, sampling.body(temperature=TEMPERATURE)
    ).run()
