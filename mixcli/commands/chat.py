"""mixcli chat: chat with a model in the terminal."""

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    Sampling,
    common,
    draft_option,
    keep_alive_option,
    model_option,
    planning_options,
    sampling_options,
    tools_option,
)
from mixcli.errors import NotInstalled
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.chat.tool_calls import ToolRunner
    from mixcli.planning.load_options import LoadOptions


@click.command("chat", cls=CheckedCommand)
@click.argument("message", required=False)
@model_option
@click.option("--system", metavar="TEXT", help="System message.")
@click.option(
    "--persona", metavar="NAME", help="Read the system message and settings from personas/NAME.md or .toml."
)
@click.option("-c", "--continue", "go_on", is_flag=True, help="Continue the last conversation.")
@click.option(
    "-r", "--resume", metavar="NAME", help="Resume a conversation by its name in `mixcli sessions`."
)
@click.option("--ephemeral", is_flag=True, help="Do not save the conversation.")
@tools_option(
    "Let the model call tools: the functions of a .py file, or an MCP server that COMMAND starts. You are asked before each call. May be repeated."
)
@click.option("-y", "--yes", is_flag=True, help="With --tools: run every call without asking.")
@click.option("--plain", is_flag=True, help="Print answers as plain text, without rendering markdown.")
@sampling_options
@planning_options
@draft_option
@keep_alive_option
@common
def command(
    message: str | None,
    model: str | None,
    system: str | None,
    persona: str | None,
    go_on: bool,
    resume: str | None,
    ephemeral: bool,
    tools: tuple[str, ...],
    yes: bool,
    plain: bool,
    sampling: Sampling,
    load_options: "LoadOptions",
    keep_alive: float,
) -> None:
    """Chat with a model; MESSAGE is sent first. Ctrl-C stops an answer, Ctrl-D quits, /help lists the commands.

    Conversations are saved with all their branches; search them with `mixcli sessions`. If stdin is not a terminal, each line
    of it is a message.
    """
    from mixcli.chat.conversation import Conversation
    from mixcli.chat.loop import ChatLoop
    from mixcli.chat.model_loader import ChatModel
    from mixcli.chat.session import ChatSession
    from mixcli.chat.sessions import Sessions
    from mixcli.request.personas import Persona
    from mixcli.request.personas import persona as read_persona
    from mixcli.request.settings import ChatSettings

    character = read_persona(persona) if persona else Persona("")
    store = Sessions(ephemeral=ephemeral)
    conversation = Conversation(
        store, model or "", system or character.system, ChatSettings.of(character.settings)
    )
    if go_on or resume:
        conversation.resume(store.find(resume) if resume else store.latest())
        model = model or (conversation.session.model if conversation.session else None) or None
        if system or persona:
            conversation.system = system or character.system
        conversation.settings = conversation.settings.with_values(character.settings)
    conversation.settings = conversation.settings.with_values(sampling.said())
    if console.is_terminal(sys.stdin) and console.is_terminal(sys.stderr):
        model = _installed_or_pulled(model, load_options)
    chat = ChatSession(
        conversation, ChatModel(model, load_options, keep_alive), plain=plain, ephemeral=ephemeral
    )
    with contextlib.ExitStack() as stack:
        if tools:
            chat.tools = _tools(tools, yes, stack)
        chat.greet()
        ChatLoop(chat).run(message)


def _tools(words: tuple[str, ...], yes: bool, stack: contextlib.ExitStack) -> "ToolRunner":
    """Open the tools, which end with the stack, and print what a person should know of them."""
    from mixcli.chat.tool_calls import ToolRunner
    from mixcli.tools.opening import open_tools

    ToolRunner.check(yes=yes)
    toolbox = stack.enter_context(open_tools(words, to_run=True))
    for note in toolbox.notes:
        console.note(note)
    return ToolRunner(toolbox, asks=not yes)


def _installed_or_pulled(model: str | None, load_options: "LoadOptions") -> str | None:
    """Return the model to chat with; where it is not installed, offer to download it, or to make the demo where no model was named.

    Raises NotInstalled where both are declined.
    """
    from mixcli.store.store import find

    try:
        find(model)
    except NotInstalled as error:
        from mixcli.commands.pull import bring
        from mixcli.planning.offers import with_offer

        missing = with_offer(error, load_options)
        console.note(str(missing))
        how = "pass -m with an installed model"
        if console.confirm(f"Pull {missing.offer or 'it'} now?", default=True, otherwise=how):
            return bring(missing.offer, load_options)
        is_open = missing.name is None and missing.offer != "demo"
        if is_open and console.confirm("Make the demo instead?", default=True, otherwise=how):
            return bring("demo", load_options)
        raise missing from None
    return model
