"""mixcli run: one prompt, one answer; made for pipes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mixcli.commands.asking import (
    check_prompt,
    endpoint_options,
    form_options,
    many_asker,
    note_model_name,
    one_asker,
    variables_option,
)
from mixcli.commands.completion import print_completion_option
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.keep_alive import keep_alive_option
from mixcli.commands.options import (
    Sampling,
    common,
    draft_option,
    json_option,
    model_option,
    planning_options,
    sampling_options,
    tools_option,
)
from mixcli.errors import UsageError

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
@tools_option(
    "Offer tools: definitions in a .json file, the functions of a .py file, or an MCP server that COMMAND starts. Calls are printed as JSON, one per line, and not run. May be repeated."
)
@click.option(
    "--tool-choice",
    metavar="auto|required|NAME",
    help="Whether a tool must be called, and which. Default: auto (the model decides).",
)
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
    help="Return the same answer on every run on the same machine; slower, because the request is not batched with others.",
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
    tools: tuple[str, ...],
    tool_choice: str | None,
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
    from mixcli.run.modes import RunOptions, answer_lines, answer_long, answer_once
    from mixcli.system.stdin import file_texts, piped_text, read_text

    check_prompt(prompt)
    system, chosen = _with_persona(persona, system)
    if deterministic:
        chosen |= {"deterministic": True, "speculate": False}
    chosen |= sampling.said()
    if endpoint is None and len(system or "") >= LONG_SYSTEM:
        chosen["persist"] = True
    if tools:
        chosen |= _offered(tools, tool_choice)
    body = ChatBody(options=chosen, park=False if endpoint is None else None)  # no next turn follows
    how = RunOptions(form, body, on_overflow, stream and not (as_json or tools), as_json, stats)
    words = read_text(template) if template else None
    speculate = chosen.get("speculate") is True
    if each_line:
        question = question_of(prompt, words, system, variables, has_text=True, many=True)
        load = partial(many_asker, endpoint, model, load_options, keep_alive, speculate=speculate)
        answer_lines(question, files, load, how)
        return
    text = "\n\n".join(part for part in (piped_text(), *file_texts(files)) if part.strip())
    note_model_name(prompt if not text else None, model)
    question = question_of(prompt, words, system, variables, has_text=bool(text))
    answer = answer_long if on_overflow == "map-reduce" else answer_once
    load_one = partial(one_asker, endpoint, model, load_options, keep_alive, speculate=speculate)
    answer(question, text, load_one, how)


def _with_persona(name: str | None, system: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the system message and the settings of a request; what a persona says is replaced by what the command line does."""
    from mixcli.request.sampling_table import SCRIPT_TEMPERATURE

    chosen: dict[str, Any] = {"temperature": SCRIPT_TEMPERATURE}
    if name is None:
        return system, chosen
    from mixcli.request import personas, settings

    role = personas.persona(name)
    wires = {name: settings.TABLE[name].wire for name in role.settings}
    chosen |= {wire: role.settings[name] for name, wire in wires.items() if wire}
    return system or role.system, chosen


def _offered(words: tuple[str, ...], choice: str | None) -> dict[str, Any]:
    """Return the fields of a request with tools; they are asked what they are, and end before the model is asked."""
    from mixcli.system.console import console
    from mixcli.system.text import did_you_mean
    from mixcli.tools.opening import open_tools

    with open_tools(words, to_run=False) as toolbox:
        for note in toolbox.notes:
            console.note(note)
        fields: dict[str, Any] = {"tools": toolbox.definitions()}
    names = [spec.name for spec in toolbox.specs]
    if choice in ("auto", "required"):
        fields["tool_choice"] = choice
    elif choice in names:
        fields["tool_choice"] = {"type": "function", "function": {"name": choice}}
    elif choice is not None:
        hint = did_you_mean(choice, names, f"the tools are {', '.join(names)}")
        raise UsageError(f"--tool-choice: tool {choice!r:.80} not found; {hint}")
    return fields
