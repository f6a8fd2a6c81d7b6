"""mixcli run: one prompt, one answer; made for pipes."""

from typing import TYPE_CHECKING

import click

from mixcli.commands.options import (
    Sampling,
    common,
    json_option,
    keep_alive_option,
    model_option,
    sampling_options,
    wish_options,
)
from mixcli.console import console

if TYPE_CHECKING:
    from mixcli.wish import Wish


@click.command("run")
@click.argument("prompt", required=False)
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@sampling_options
@wish_options
@keep_alive_option
@json_option
@click.option("--stats", is_flag=True, help="Say on stderr how long it took.")
@common
def command(
    prompt: str | None,
    model: str | None,
    system: str | None,
    sampling: Sampling,
    wish: "Wish",
    keep_alive: float,
    as_json: bool,
    stats: bool,
) -> None:
    """Answer PROMPT, or what comes through a pipe; with both, the piped text comes first.

    Without --temperature the likeliest token is always taken, so that a script gets the same answer for the same text.
    """
    from mixcli.answer import ask
    from mixcli.launch import loaded
    from mixcli.stdin import with_piped_text

    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": with_piped_text(prompt)})
    with loaded(model, wish, keep_alive) as host:
        answer = ask(host, {"messages": messages, **sampling.body(temperature=0.0)}, show=not as_json)
    if as_json:
        console.data(answer.to_dict())
    if stats:
        console.note(answer.statistics())
