"""The table of slash commands, and how a line finds its command."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from mixcli.chat.commands import branches, conversation, model
from mixcli.chat.complete import PATH, Words
from mixcli.chat.session import ChatSession
from mixcli.chat.view import notes
from mixcli.errors import UsageError
from mixcli.request import personas
from mixcli.request.settings import TABLE as SETTINGS
from mixcli.system.console import console
from mixcli.system.text import did_you_mean

Act = Callable[[ChatSession, str], None]

KEYS = """
Alt-Enter  start a new line; \"\"\" starts and ends a message of several lines
Ctrl-G     open $EDITOR; Ctrl-R searches the input history
Ctrl-C     stop an answer; at the empty prompt, quit (as Ctrl-D)
//         start a message that begins with /"""


@dataclass(frozen=True)
class SlashCommand:
    """A slash command: its function, its arguments as text and for completion, and its help."""

    act: Act
    takes: str
    help: str
    words: Callable[[ChatSession], Words] = lambda _chat: ()


def _help(_chat: ChatSession, _rest: str) -> None:
    for name, one in TABLE.items():
        console.note(notes.row(f"{f'{name} {one.takes}':<31} ", one.help))
    console.note(KEYS)


def _quit(chat: ChatSession, _rest: str) -> None:
    chat.leaving = True


def _systems(_chat: ChatSession) -> Words:
    return ["none", *(f"@{name}" for name in personas.names())]


def _settings(_chat: ChatSession) -> Words:
    return SETTINGS


def _sessions(chat: ChatSession) -> Words:
    return [one.name for one in chat.conversation.store.all()]


def _paths(_chat: ChatSession) -> Words:
    return PATH


TABLE: dict[str, SlashCommand] = {
    "/help": SlashCommand(_help, "", "list these commands"),
    "/model": SlashCommand(model.model, "[NAME]", "show the model, or switch to another", model.model_names),
    "/profile": SlashCommand(model.profile, "[NAME]", "show or change the hardware profile", model.profile_names),
    "/system": SlashCommand(conversation.system, "[TEXT|none|@PERSONA]", "show or set the system message", _systems),
    "/set": SlashCommand(conversation.set_, "[NAME [VALUE]]", "show or change settings: temperature, seed ...", _settings),
    "/retry": SlashCommand(branches.retry, "", "answer the last question again"),
    "/edit": SlashCommand(branches.edit, "[N]", "write a message in $EDITOR, or edit message N"),
    "/undo": SlashCommand(branches.undo, "", "undo the last turn; it is kept as a branch"),
    "/branch": SlashCommand(branches.branch, "[N]", "list the branches, or switch to one"),
    "/sessions": SlashCommand(branches.sessions, "[WORDS]", "list conversations, or search them"),
    "/resume": SlashCommand(branches.resume, "NAME", "continue another conversation", _sessions),
    "/rename": SlashCommand(branches.rename, "NAME", "rename this conversation"),
    "/export": SlashCommand(conversation.export, "[markdown|json] [PATH]", "save this conversation to a file", _paths),
    "/copy": SlashCommand(conversation.copy_answer, "", "copy the last answer to the clipboard"),
    "/file": SlashCommand(conversation.file, "PATH", "attach a text file to the next message", _paths),
    "/context": SlashCommand(conversation.context, "", "show what the model sees, with token counts"),
    "/tools": SlashCommand(conversation.tools, "", "list the tools (* runs without asking)"),
    "/clear": SlashCommand(conversation.clear, "", "start a new conversation; this one stays saved"),
    "/stats": SlashCommand(conversation.statistics, "", "show speed and token counts of the last answer"),
    "/plan": SlashCommand(model.plan, "", "show which part of the model is on which device"),
    "/experts": SlashCommand(model.experts, "", "show which experts the last answer used"),
    "/quit": SlashCommand(_quit, "", "quit (as Ctrl-D)"),
}  # fmt: skip


# the commands of Ollama's and llama.cpp's chats, and ours
ELSEWHERE = {
    **dict.fromkeys(("/bye", "/exit", "/q"), "/quit"),
    **dict.fromkeys(("/?", "/h"), "/help"),
    **dict.fromkeys(("/load", "/show", "/models"), "/model"),
    **dict.fromkeys(("/new", "/reset"), "/clear"),
    "/save": "/export",
    "/regen": "/retry",
    "/read": "/file",
}


def run(chat: ChatSession, line: str) -> None:
    """Run the command named by the first word, or suggest the nearest name. Raises what the command raises."""
    word, _, rest = line.partition(" ")
    word = word.strip()
    if word in TABLE:
        TABLE[word].act(chat, rest.strip())
        return
    if meant := ELSEWHERE.get(word):
        raise UsageError(f"no such command {word}; did you mean {meant}?")
    raise UsageError(
        f"no such command {word}; {did_you_mean(word, TABLE, '/help lists them')} (// starts a message that begins with /)"
    )


def completions(chat: ChatSession) -> Mapping[str, tuple[Callable[[], Words], str]]:
    """Return what the Tab key may offer after each command: how to get it, and the command's help."""
    return {name: (partial(one.words, chat), one.help) for name, one in TABLE.items()}
