"""Answer a message in a chat: ask the model, run the tools that it calls, and ask again until it calls none."""

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from mixcli.chat.files import with_files
from mixcli.chat.session import ChatSession
from mixcli.chat.sessions import CUT, STOPPED
from mixcli.chat.sessions import FAILED as UNANSWERED
from mixcli.chat.tool_calls import CANCELLED, MAX_ROUNDS
from mixcli.chat.view import notes
from mixcli.chat.view.toolbar import line
from mixcli.errors import ModelDied
from mixcli.host.protocol.messages import ChatBody
from mixcli.system.console import console
from mixcli.system.signals import Interrupted

if TYPE_CHECKING:
    from mixcli.chat.turn import Outcome
    from mixcli.chat.view.render import View
    from mixcli.request.prompt import FunctionCall


def say(chat: ChatSession, text: str) -> None:
    """Ask the model; files that were attached go first. What could not be asked stands in the next prompt."""
    files, chat.files = chat.files, []
    chat.conversation.ask(with_files(files, text))
    if not answer(chat):
        chat.conversation.undo()
        chat.draft, chat.files = text, files
        if chat.talking:
            console.note("(your message is back in the input line)")


def answer(chat: ChatSession) -> bool:
    """Stream the answer that the conversation has begun, and those after the tools that it calls; False when there was no model to ask."""
    for n_rounds in range(MAX_ROUNDS):
        outcome = _stream(chat)
        if outcome is None:
            return n_rounds > 0
        if not outcome.calls or not _run(chat, outcome.calls):
            return True
        chat.conversation.answer()
    chat.conversation.end(STOPPED)
    chat.n_failed += 1
    console.note(f"(stopped after {MAX_ROUNDS} answers that call tools; send a message to continue)")
    return True


def _stream(chat: ChatSession) -> "Outcome | None":
    """Stream one answer; None when there was no model to ask."""
    with contextlib.closing(chat.view()) as view:
        return _streamed(chat, view)


def _streamed(chat: ChatSession, view: "View") -> "Outcome | None":
    from mixcli.chat.turn import take_turn

    try:
        host = chat.loaded_behind(view)
    except KeyboardInterrupt:
        view.close()
        chat.conversation.end(UNANSWERED)
        _end_without_person(chat)
        console.note("(cancelled; the model continues to load)")
        return None
    except Exception as error:
        view.close()
        _fail(chat, error)
        return None
    _note_system(chat)
    chat.conversation.talk_with(chat.model.label)
    is_host = host.client.is_host
    options: dict[str, object] = {**chat.conversation.settings.body(with_defaults=is_host)}
    if is_host:
        options["persist"] = not chat.ephemeral
    if definitions := chat.definitions:
        options["tools"] = definitions
    body = ChatBody(chat.conversation.to_messages(), options)
    before = chat.n_used
    outcome = take_turn(
        host, body, chat.conversation, view,
        lambda rate, n_prompt, n_answer: line(replace(chat.gauges(), decode_rate=rate, n_used=(n_prompt or before) + n_answer)),
    )  # fmt: skip
    chat.n_counted, chat.stats = before, outcome.stats
    _close(chat, outcome)
    if not chat.stats.n_prompt:
        chat.count()
    return outcome


def _end_without_person(chat: ChatSession) -> None:
    """Raise Interrupted again where messages come from a pipe: there Ctrl-C is meant for the whole chat, not for an answer."""
    if not chat.talking:
        raise Interrupted


def _run(chat: ChatSession, calls: "tuple[FunctionCall, ...]") -> bool:
    """Run tools one after the other; False where Ctrl-C ended one, which stops the others too."""
    tools = chat.tools
    stopped = False
    for call in calls:
        text = CANCELLED
        if tools is not None and not stopped:
            try:
                text = tools.run(call, chat.model.n_ctx)
            except KeyboardInterrupt:
                _end_without_person(chat)
                stopped = True
        chat.conversation.add_result(call, text)
    if tools is not None:
        chat.draft, tools.typed = chat.draft + tools.typed, ""
    if stopped:
        console.note("(stopped; the model sees this with your next message)")
    return not stopped


def _close(chat: ChatSession, outcome: "Outcome") -> None:
    """Print what the answer itself does not tell."""
    if outcome.n_dropped > chat.n_dropped:
        console.note(notes.dropped(outcome.n_dropped, chat.model.n_ctx))
    chat.n_dropped = outcome.n_dropped
    if outcome.state == STOPPED:
        _end_without_person(chat)
        console.note("(stopped)")
    elif chat.stats.finish_reason == "length":
        limit = chat.conversation.settings.get("max_tokens")
        console.note(notes.truncated(chat.stats, limit, chat.model.n_ctx))
    error = outcome.error
    if isinstance(error, ModelDied):
        chat.n_failed += 1
        cause = chat.model.lost()
        kept = "the partial answer is" if outcome.state == CUT else "the conversation is"
        console.warn(
            f"the model process crashed during the answer ({cause}); {kept} saved; send a message or /retry to reload the model"
        )
    elif error is not None:
        chat.n_failed += 1
        console.warn(f"{error}")


def _fail(chat: ChatSession, error: Exception) -> None:
    chat.conversation.end(UNANSWERED)
    if not hasattr(error, "exit_code"):
        raise error
    if len(chat.conversation.messages) <= 2 and not chat.stats.n_prompt:
        raise error  # nothing was ever answered: the command itself has failed
    chat.n_failed += 1
    console.warn(str(error))


def _note_system(chat: ChatSession) -> None:
    if chat.conversation.system and "system" not in chat.said and chat.model.folds_system():
        chat.said.add("system")
        console.note(
            "(this model's chat format has no system role: the system message is prepended to a user message)"
        )


__all__ = ["answer", "say"]
