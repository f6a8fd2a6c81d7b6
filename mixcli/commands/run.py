"""mixcli run: one prompt, one answer; made for pipes."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixcli.commands.asking import (
    endpoint_options,
    form_options,
    many_asker,
    one_asker,
    variables_option,
)
from mixcli.commands.completion import print_completion_option
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    Sampling,
    common,
    draft_option,
    json_option,
    keep_alive_option,
    model_option,
    planning_options,
    sampling_options,
)

if TYPE_CHECKING:
    from mixcli.client.endpoint import Endpoint
    from mixcli.planning.load_options import LoadOptions
    from mixcli.request.output_format import OutputFormat


LONG_SYSTEM = 2000  # characters of a system message that are worth keeping computed on disk


@click.command("run", cls=CheckedCommand)
@click.argument("prompt", required=False)
@click.option(
    "-f",
    "--file",
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="Add a text file to the prompt; may be repeated.",
)
@click.option("--system", metavar="TEXT", help="System message.")
@click.option(
    "--persona", metavar="NAME", help="Read the system message and settings from personas/NAME.md or .toml."
)
@click.option(
    "-t",
    "--template",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Prompt template with {{ stdin }}, {{ prompt }} and {{ NAME }}.",
)
@variables_option
@form_options
@sampling_options
@click.option(
    "--each-line", is_flag=True, help="Answer each input line separately: one output line each, in order."
)
@click.option(
    "--on-overflow",
    type=click.Choice(["error", "drop-oldest", "map-reduce"]),
    default="error",
    show_default=True,
    help="If the prompt exceeds the context: fail (error), drop the oldest messages (drop-oldest), or answer it in parts and combine the answers (map-reduce).",
)
@click.option("--stream/--no-stream", default=True, help="Stream the answer, or print it when complete.")
@click.option(
    "--deterministic",
    is_flag=True,
    help="Return the same answer on every run on the same machine; slower, because it is computed alone.",
)
@endpoint_options
@model_option
@planning_options
@draft_option
@keep_alive_option
@json_option
@click.option("--stats", is_flag=True, help="Print timing statistics to stderr.")
@print_completion_option
@common
def command(
    prompt: str | None,
    files: tuple[Path, ...],
    system: str | None,
    persona: str | None,
    template: Path | None,
    variables: dict[str, str],
    form: "OutputFormat",
    sampling: Sampling,
    each_line: bool,
    on_overflow: str,
    stream: bool,
    deterministic: bool,
    endpoint: "Callable[[str | None], Endpoint] | None",
    model: str | None,
    load_options: "LoadOptions",
    keep_alive: float,
    as_json: bool,
    stats: bool,
) -> None:
    """Answer PROMPT, or piped text; with both, the piped text comes first.

    Without --temperature the most likely token is always taken, so a script gets the same answer for the same text.
    """
    from mixcli.host.protocol.messages import ChatBody
    from mixcli.request.prompt import question_of
    from mixcli.request.sampling_table import SCRIPT_TEMPERATURE
    from mixcli.run.modes import RunOptions, answer_lines, answer_long, answer_once
    from mixcli.system.stdin import file_texts, piped_text, read_text

    kept: dict[str, Any] = {}
    if persona is not None:
        from mixcli.request import personas, settings

        role = personas.persona(persona)
        system = system or role.system
        wires = {name: settings.TABLE[name].wire for name in role.settings}
        kept = {wire: role.settings[name] for name, wire in wires.items() if wire}
    if deterministic:
        kept = {**kept, "deterministic": True, "speculate": False}
    chosen = {"temperature": SCRIPT_TEMPERATURE, **kept, **sampling.said()}
    if endpoint is None and len(system or "") >= LONG_SYSTEM:
        chosen["persist"] = True
    body = ChatBody(options=chosen, park=False if endpoint is None else None)  # no next turn follows
    how = RunOptions(form, body, on_overflow, stream and not as_json, as_json, stats)
    words = read_text(template) if template else None
    if each_line:
        question = question_of(prompt, words, system, variables, has_text=True, many=True)
        answer_lines(question, files, lambda: many_asker(endpoint, model, load_options, keep_alive), how)
        return
    text = "\n\n".join(part for part in (piped_text(), *file_texts(files)) if part.strip())
    question = question_of(prompt, words, system, variables, has_text=bool(text))
    answer = answer_long if on_overflow == "map-reduce" else answer_once
    answer(question, text, lambda: one_asker(endpoint, model, load_options, keep_alive), how)
