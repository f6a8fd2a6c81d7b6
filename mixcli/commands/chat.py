"""mixcli chat: talk with a model in the terminal."""

from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import (
    Sampling,
    common,
    keep_alive_option,
    model_option,
    sampling_options,
    wish_options,
)

if TYPE_CHECKING:
    from mixcli.wish import Wish


@click.command("chat", cls=Command)
@click.argument("message", required=False)
@model_option
@click.option("--system", metavar="TEXT", help="A system message: how the model should answer.")
@click.option(
    "--persona", metavar="NAME", help="A system message and settings from personas/NAME.md or .toml."
)
@click.option("-c", "--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("-r", "--resume", metavar="NAME", help="Go on with a conversation of `mixcli sessions`.")
@click.option("--ephemeral", is_flag=True, help="Write nothing to the disk.")
@click.option("--plain", is_flag=True, help="Show answers as they come, without drawing markdown.")
@sampling_options
@wish_options
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
    plain: bool,
    sampling: Sampling,
    wish: "Wish",
    keep_alive: float,
) -> None:
    """Talk with a model; MESSAGE is said first. Ctrl-C stops an answer, Ctrl-D leaves, /help lists what else there is.

    Conversations are kept, with all their branches, and can be searched: `mixcli sessions`. Where stdin is no terminal, every line
    of it is a message.
    """
    from mixcli.chat.model import ChatModel
    from mixcli.chat.personas import Persona
    from mixcli.chat.personas import persona as read_persona
    from mixcli.chat.repl import Chat
    from mixcli.chat.sessions import Sessions
    from mixcli.chat.settings import Settings
    from mixcli.chat.talk import Talk

    character = read_persona(persona) if persona else Persona("")
    store = Sessions(ephemeral=ephemeral)
    talk = Talk(store, model or "", system or character.system, Settings.of(character.settings))
    if go_on or resume:
        talk.resume(store.find(resume) if resume else store.latest())
        model = model or (talk.session.model if talk.session else None) or None
        if system or persona:
            talk.system = system or character.system
        talk.settings = talk.settings.with_values(character.settings)
    talk.settings = talk.settings.with_values(sampling.said())
    chat = Chat(talk, ChatModel(model, wish, keep_alive), plain=plain, ephemeral=ephemeral)
    chat.greet()
    chat.run(message)
