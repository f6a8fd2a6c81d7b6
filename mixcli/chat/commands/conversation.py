"""Slash commands about the conversation: system message, settings, context, statistics, export."""

import json

from mixcli.chat.clipboard import copy
from mixcli.chat.commands.branches import beginning
from mixcli.chat.export import FORMATS, text_of
from mixcli.chat.files import attach, write_new
from mixcli.chat.session import ChatSession
from mixcli.chat.sessions import STOPPED
from mixcli.chat.view import notes
from mixcli.chat.view.calls import shown_call
from mixcli.errors import UsageError
from mixcli.request import personas
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.paths import with_home


def system(chat: ChatSession, rest: str) -> None:
    """Show the system message, or set it."""
    if not rest:
        console.note(chat.conversation.system or "(no system message)")
        return
    if rest.startswith("@"):
        persona = personas.persona(rest[1:])
        chat.conversation.system = persona.system
        chat.conversation.settings = chat.conversation.settings.with_values(persona.settings)
    else:
        chat.conversation.system = "" if rest == "none" else rest
    chat.conversation.remember()
    console.note("(system message set)" if chat.conversation.system else "(system message removed)")


def set_(chat: ChatSession, rest: str) -> None:
    """Show settings, or choose one."""
    name, _, value = rest.partition(" ")
    name = name.replace("-", "_")
    if value.strip():
        chat.conversation.settings = chat.conversation.settings.with_text(name, value.strip())
        chat.conversation.remember()
    elif name:
        chat.conversation.settings.with_text(name, "default")  # knows whether there is one of that name
    for known, shown, meaning in chat.conversation.settings.rows():
        if name in ("", known):
            console.note(notes.row(f"{known:<17} {shown:<11} ", meaning))


def export(chat: ChatSession, rest: str) -> None:
    """Export the conversation to a file; the format is the given one, or that of the file's suffix."""
    session = chat.conversation.session
    if session is None or not chat.conversation.messages:
        others = len(chat.conversation.branches())
        step = "/branch switches to another one" if others else "send a message first"
        raise UsageError(f"{'this branch' if others else 'the conversation'} is empty; {step}")
    word, _, path_text = rest.partition(" ")
    if word not in FORMATS:
        word, path_text = "", rest
    form = word or next((form for form, suffix in FORMATS.items() if path_text.endswith(suffix)), "markdown")
    path = with_home(path_text.strip() or f"{session.name}{FORMATS[form]}")
    write_new(path, text_of(session, chat.conversation.messages, form))
    console.note(f"(saved to {path})")


def copy_answer(chat: ChatSession, _rest: str) -> None:
    """Copy the last answer."""
    console.note(f"(copied to the clipboard by {copy(chat.conversation.last_answer().content)})")


def file(chat: ChatSession, rest: str) -> None:
    """Attach a file to the next message."""
    if not rest:
        raise UsageError("/file needs the path of a text file; write /file PATH")
    chat.files.append(attach(rest))
    console.note(f"({chat.files[-1].name} is attached to the next message)")


def context(chat: ChatSession, _rest: str) -> None:
    """Show every message and whether the model sees it, with its tokens as the model's own tokenizer counts them."""
    host = chat.loaded()
    wire = chat.conversation.to_messages(chat.n_dropped)
    if not wire:
        console.note("(the context is empty)")
        return

    def row(mark: str, role: str, text: str, *, seen: bool = True) -> None:
        n = f"{counted(host.client.count_text(text).count or 0, 'token')}" if seen else "dropped"
        console.note(f"{mark:>3}  {role:<9} {n:>14}  {beginning(text)}")

    if chat.conversation.system:
        row("", "system", chat.conversation.system)
    if chat.definitions:
        row("", "tools", json.dumps(chat.definitions, ensure_ascii=False))
    sent = {one.id for one in chat.conversation.sent(chat.n_dropped)}
    number = 0
    for message in chat.conversation.messages:
        number += message.role == "user"
        if text := message.content or "\n".join(map(shown_call, message.calls)):
            row(
                str(number) if message.role == "user" else "",
                message.role,
                text,
                seen=message.id in sent,
            )
    total = host.client.count_messages(wire, chat.definitions)
    n, n_ctx = total.count or 0, total.max_model_len or chat.model.n_ctx
    share = f", {100 * n / n_ctx:.0f} % of {n_ctx:,}" if n_ctx else ""
    console.note(f"{'':5}{'total':<9} {n:>7,} tokens with the chat format's own{share}")


def tools(chat: ChatSession, _rest: str) -> None:
    """List the tools that the model may call."""
    if chat.tools is None:
        console.note("(no tools; start the chat with --tools FILE.py or the command of an MCP server)")
        return
    for name, what in chat.tools.rows():
        mark = "*" if name in chat.tools.always or not chat.tools.asks else " "
        console.note(notes.row(f"{mark} {name:<24} ", what))


def clear(chat: ChatSession, _rest: str) -> None:
    """Begin a new conversation."""
    chat.conversation.begin_anew()
    chat.files.clear()
    chat.forget_stats()
    console.note("(new conversation)")


def statistics(chat: ChatSession, _rest: str) -> None:
    """Show what the last answer cost."""
    if not chat.stats.n_prompt and not chat.stats.n_generated:
        if chat.stats.finish_reason == STOPPED:
            raise UsageError("the last answer was stopped before its first token, so it has no statistics")
        raise UsageError("the last answer has no statistics; send a message first")
    for name, value in chat.stats.rows(chat.model.n_ctx, chat.model.estimated_decode()):
        console.note(notes.row(f"{name:<20} ", value))
