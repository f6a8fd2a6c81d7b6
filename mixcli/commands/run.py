"""mixcli run: one prompt, one answer; made for pipes."""

import click

from mixcli.commands.options import (
    Sampling,
    common,
    json_option,
    loading_options,
    machine_options,
    model_option,
    sampling_options,
    wish_of,
)
from mixcli.console import console
from mixcli.words import seconds


@click.command("run")
@click.argument("prompt", required=False)
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@sampling_options
@loading_options
@machine_options
@json_option
@click.option("--stats", is_flag=True, help="Say on stderr how long it took.")
@common
def command(
    prompt: str | None,
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
    stay = seconds(keep_alive)
    wish = wish_of(n_ctx, profile, vram, ram, kv, workers)
    with loaded(model, wish, stay) as host:
        answer = ask(host, {"messages": messages, **sampling.body(temperature=0.0)}, show=not as_json)
    if as_json:
        console.data(answer.to_dict())
    if stats:
        console.note(answer.statistics())
