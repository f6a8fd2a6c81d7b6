"""The chat loop: read a message or a slash command, act on the session, show the prompt again."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING

from mixcli.chat.answering import say
from mixcli.chat.input import Editor, Lines, MessageSource
from mixcli.chat.model_loader import FAILED
from mixcli.chat.session import ChatSession
from mixcli.chat.terminal_modes import is_dumb, keys_as_typed, typing_ahead
from mixcli.chat.view.toolbar import line, loading
from mixcli.errors import SomeFailed
from mixcli.system.console import console
from mixcli.system.formatting import counted
from mixcli.system.signals import survive_interrupts

if TYPE_CHECKING:
    from mixcli.chat.complete import Table


class ChatLoop:
    """Reads from the terminal or a pipe until the person leaves, and listens to the load of the session's model."""

    def __init__(self, session: ChatSession) -> None:
        self._session = session
        self._source: MessageSource = Lines()
        self._failure: Exception | None = None
        session.changed = self._on_load

    def run(self, first: str | None = None) -> None:
        """Chat until the person leaves or stdin ends; Ctrl-C at the empty prompt raises KeyboardInterrupt.

        Raises why the model cannot be loaded when nothing was said yet, SomeFailed when messages from a pipe had no answer, or commands failed.
        """
        session = self._session
        if session.talking:
            survive_interrupts()
        if session.talking and not is_dumb():
            self._source = self._editor()
        else:
            session.load()
        keys = keys_as_typed() if isinstance(self._source, Editor) else nullcontext()
        try:
            with keys:
                if first and first.strip():
                    session.load()
                    self._do(lambda: say(session, first))
                while not session.leaving and (text := self._read()) is not None:
                    self._take(text)
        finally:
            session.model.release()
        failed = [f"{counted(session.n_failed, 'message')} had no answer"] * bool(session.n_failed)
        failed += [f"{counted(session.n_refused, 'command')} failed"] * bool(session.n_refused)
        if failed and not session.talking:
            raise SomeFailed(f"{' and '.join(failed)}; see the error after each")

    def _read(self) -> str | None:
        draft, self._session.draft = self._session.draft, ""
        text = self._source.read(draft)
        if self._failure is not None:
            raise self._failure
        return text

    def _take(self, text: str) -> None:
        if text.startswith("/") and not text.startswith("//"):
            self._do(lambda: self._command(text))
        elif text.strip():
            self._do(lambda: say(self._session, text.removeprefix("/") if text.startswith("//") else text))

    def _do(self, act: Callable[[], None]) -> None:
        """Run an action between two prompts; Ctrl-C ends the action, not the chat."""
        try:
            with typing_ahead():
                act()
        except KeyboardInterrupt:
            if not self._session.talking:
                raise
            console.note("(cancelled)")
        if self._session.seen and not self._session.leaving:
            console.line()

    def _command(self, text: str) -> None:
        from mixcli.chat.commands.table import run

        try:
            run(self._session, text)
        except Exception as error:
            if not hasattr(error, "exit_code"):
                raise
            self._session.n_refused += 1
            console.warn(str(error))

    def _editor(self) -> Editor:
        from mixcli.chat.complete import SlashCompleter
        from mixcli.system import paths

        session = self._session
        return Editor(
            None if session.ephemeral else paths.data_dir() / "chat-history",
            SlashCompleter(self._completions),
            self._toolbar,
            lambda: str(session.conversation.settings.get("keys")),
            session.load,
        )

    def _completions(self) -> "Table":
        from mixcli.chat.commands.table import completions

        return completions(self._session)

    def _toolbar(self) -> str:
        lines = loading(self._session.model.state) or [line(self._session.gauges())]
        return "\n".join(f" {one}" for one in lines)

    def _on_load(self) -> None:
        """Draw a step of the load, in its thread; if the first model cannot be loaded, end the chat at once."""
        session, source = self._session, self._source
        if (
            session.model.state.status == FAILED
            and not session.conversation.messages
            and isinstance(source, Editor)
        ):
            assert session.model.error
            self._failure = session.model.error
            source.leave(EOFError())
        source.refresh()
