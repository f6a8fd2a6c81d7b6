"""mixcli chat: chat with a model in the terminal."""

import contextlib
from typing import TYPE_CHECKING

import click

from mixcli.commands.asking import check_prompt, endpoint_options, note_model_name
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.keep_alive import keep_alive_option
from mixcli.commands.options import (
    Sampling,
    common,
    draft_option,
    model_option,
    planning_options,
    sampling_options,
    tools_option,
)
from mixcli.errors import NotInstalled, UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.chat.conversation import Conversation
    from mixcli.chat.model_loader import ChatModel
    from mixcli.chat.tool_calls import ToolRunner
    from mixcli.commands.asking import ServerOption
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
@endpoint_options
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
    endpoint: "ServerOption | None",
    load_options: "LoadOptions",
    keep_alive: float,
) -> None:
    """Chat with a model; MESSAGE is sent first. Ctrl-C stops an answer, Ctrl-D quits, /help lists the commands.

    Conversations are saved with all their branches; search them with `mixcli sessions`. If stdin is not a terminal, each line
    of it is a message.
    """
    from mixcli.chat.conversation import Conversation
    from mixcli.chat.loop import ChatLoop
    from mixcli.chat.session import ChatSession
    from mixcli.chat.sessions import Sessions
    from mixcli.request.personas import Persona
    from mixcli.request.personas import persona as read_persona
    from mixcli.request.settings import ChatSettings

    check_prompt(message)
    character = read_persona(persona) if persona else Persona("")
    store = Sessions(ephemeral=ephemeral)
    conversation = Conversation(
        store, model or "", system or character.system, ChatSettings.of(character.settings)
    )
    if go_on or resume:
        conversation.resume(store.find(resume) if resume else store.latest())
        model = model or _model_before(conversation, endpoint)
        if system or persona:
            conversation.system = system or character.system
        conversation.settings = conversation.settings.with_values(character.settings)
    conversation.settings = conversation.settings.with_values(sampling.said())
    chosen = _model(endpoint, model, load_options, keep_alive)
    chat = ChatSession(conversation, chosen, plain=plain, ephemeral=ephemeral)
    with contextlib.ExitStack() as stack:
        if tools:
            chat.tools = _tools(tools, yes, stack)
        chat.greet()
        note_model_name(message, model)
        ChatLoop(chat).run(message)


def _model_before(conversation: "Conversation", endpoint: "ServerOption | None") -> str | None:
    """Return the model that a resumed conversation had, None where it was in another place than the one of now."""
    from mixcli.chat.remote_model import split_label

    session = conversation.session
    if session is None or not session.model:
        return None
    name, url = split_label(session.model)
    if endpoint is not None:
        return name if url == endpoint.url else None
    if url:
        raise UsageError(
            f"{session.name} was answered by {session.model}; pass --endpoint {url}, or -m with an installed model"
        )
    return name


def _model(
    endpoint: "ServerOption | None", name: str | None, load_options: "LoadOptions", keep_alive: float
) -> "ChatModel":
    """Return the model to chat with, on this machine or at a server."""
    if endpoint is not None:
        from mixcli.chat.remote_model import RemoteModel

        endpoint.announce()
        return RemoteModel(endpoint.connect, endpoint.url, name)
    from mixcli.chat.local_model import LocalModel

    offline = click.get_current_context().params["offline"]
    if console.can_ask() and not offline:
        name = _installed_or_pulled(name, load_options)
    return LocalModel(name, load_options, keep_alive)


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

    The command ends where both are declined.
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
        raise SystemExit(missing.exit_code) from None  # the note has said why
    return model
