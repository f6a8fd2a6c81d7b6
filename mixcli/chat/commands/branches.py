"""Slash commands that move between branches of a conversation, and between conversations."""

import sys

from mixcli.chat.answering import answer, say
from mixcli.chat.editor import edited
from mixcli.chat.session import ChatSession
from mixcli.chat.terminal_modes import other_program
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, moment

SHOWN = 60  # characters of a message in a list


def retry(chat: ChatSession, _rest: str) -> None:
    """Answer the last question again."""
    chat.conversation.retry()
    answer(chat)


def undo(chat: ChatSession, _rest: str) -> None:
    """Go back to before the last question."""
    question = chat.conversation.undo()
    chat.forget_stats()
    console.note(f"(undone: {beginning(question)})")


def edit(chat: ChatSession, rest: str) -> None:
    """Compose a message in the editor, or change an old one; it is sent when the editor leaves."""
    if not chat.talking:
        raise UsageError("/edit needs a terminal")
    number = _number(rest) if rest else None
    old = chat.conversation.question(number).content if number else chat.draft
    with other_program():
        text = edited(old).strip("\n")
    if not text.strip() or (number and text == old):
        console.note("(no change)")
        return
    if number:
        chat.conversation.before(number)
    console.note("\n".join(f"> {row}" for row in text.splitlines()))
    say(chat, text)


def branch(chat: ChatSession, rest: str) -> None:
    """List the branches, or go to one."""
    if rest:
        chat.conversation.switch(_number(rest))
        chat.forget_stats()
        chat.show(chat.conversation.last_turn())
        return
    here = chat.conversation.messages[-1].id if chat.conversation.messages else None
    for number, messages in enumerate(chat.conversation.branches(), 1):
        mark = "*" if messages[-1].id == here else " "
        head = f"{mark}{number:>3}  {counted(len(messages), 'message'):>12}  "
        room = min(SHOWN, console.width(sys.stderr) - len(head) - len(" / ")) // 2
        last = " / ".join(filter(None, (beginning(one.content, max(room, 1)) for one in messages[-2:])))
        console.note(head + last)


def sessions(chat: ChatSession, rest: str) -> None:
    """List conversations, or search them."""
    if rest:
        hits = chat.conversation.store.search(rest)
        for hit in hits:
            console.note(f"{moment(hit.created)}  {hit.session}  {hit.role}: {hit.snippet}")
        if not hits:
            console.note(f"(no message matches {rest!r})")
        return
    have = chat.conversation.store.all()
    width = max((len(one.name) for one in have), default=0)
    for one in have:
        mark = "*" if chat.conversation.session and one.id == chat.conversation.session.id else " "
        console.note(
            f"{mark} {moment(one.used)}  {one.name:<{width}}  {counted(one.n_messages, 'message'):>12}, {one.model}"
        )
    if not have:
        console.note("(no conversations yet)")


def resume(chat: ChatSession, rest: str) -> None:
    """Continue another conversation."""
    if not rest:
        raise UsageError("/resume needs the name of a conversation; /sessions lists them")
    chat.conversation.resume(chat.conversation.store.find(rest))
    chat.forget_stats()
    chat.greet()


def rename(chat: ChatSession, rest: str) -> None:
    """Rename the conversation."""
    if not rest:
        raise UsageError("/rename needs a name; write /rename NAME")
    console.note(f"(conversation renamed to {chat.conversation.rename(rest)})")


def beginning(text: str, length: int = SHOWN) -> str:
    """Return the first words of a message, on one line of at most `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise UsageError(f"{text!r} is not a number in the list")
    return int(text)
