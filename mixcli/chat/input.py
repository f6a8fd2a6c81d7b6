"""Read messages: with prompt_toolkit on a terminal, as plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.stdin import decode, said
from mixcli.system.text import clean, not_text

if TYPE_CHECKING:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.buffer import Buffer
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History
    from prompt_toolkit.key_binding import KeyBindings

PROMPT, MORE = ">>> ", "... "
QUOTES = '"""'
MAX_LINE = 16 << 20  # bytes of one line from a pipe; no context holds so much


class MessageSource(Protocol):
    """Yields one message after the other."""

    def read(self, draft: str = "") -> str | None:
        """Return the next message, None at the end; KeyboardInterrupt for Ctrl-C at an empty prompt."""

    def refresh(self) -> None:
        """Draw again what has changed around the prompt; may be called from any thread."""


def unquoted(text: str) -> str:
    """Take the triple quotes off a message of several lines."""
    stripped = text.strip()
    if stripped.startswith(QUOTES):
        return stripped.removeprefix(QUOTES).removesuffix(QUOTES).strip("\n")
    return text


def is_open(text: str) -> bool:
    """Return whether a message began with triple quotes that are not closed yet."""
    stripped = text.strip()
    return stripped.startswith(QUOTES) and not (
        stripped.endswith(QUOTES) and len(stripped) >= 2 * len(QUOTES)
    )


class Lines:
    """Lines of stdin; triple quotes make one message of several. A prompt is shown where a person sits at a dumb terminal."""

    def __init__(self) -> None:
        self._prompts = console.is_terminal(sys.stdin)
        self._looked = False  # at the first line of a pipe: is it text?

    def read(self, draft: str = "") -> str | None:  # noqa: ARG002  a plain line has nothing to edit
        text = self._line(PROMPT)
        while text is not None and is_open(text):
            more = self._line(MORE)
            if more is None:
                break
            text += "\n" + more
        return None if text is None else unquoted(text)

    def refresh(self) -> None:
        pass

    def _line(self, prompt: str) -> str | None:
        if self._prompts:
            sys.stderr.write(prompt)
            sys.stderr.flush()
        if sys.stdin is None or sys.stdin.closed:
            return None
        raw = sys.stdin.buffer.readline(MAX_LINE + 1)
        if len(raw) > MAX_LINE:
            raise UsageError(
                f"a line of the input is longer than {MAX_LINE >> 20} MiB, more than any context"
            )
        if not raw:
            if self._prompts:
                sys.stderr.write("\n")
            return None
        if not self._prompts and not self._looked and (why := not_text(raw)):
            raise UsageError(f"the piped text {why}")
        self._looked = True
        return decode(raw).rstrip("\n")


class Editor:
    """prompt_toolkit's editor: history over sessions, several lines, completion, search, $EDITOR."""

    def __init__(
        self,
        history: Path | None,
        completer: "Completer",
        toolbar: Callable[[], str],
        keys: Callable[[], str],
        ready: Callable[[], None],
    ) -> None:
        self._history, self._completer = history, completer
        self._toolbar, self._keys, self._ready = toolbar, keys, ready
        self._session: PromptSession[str] | None = None

    def read(self, draft: str = "") -> str | None:
        from prompt_toolkit.enums import EditingMode
        from prompt_toolkit.patch_stdout import patch_stdout

        session = self._session = self._session or self._made()
        session.editing_mode = EditingMode.VI if self._keys() == "vi" else EditingMode.EMACS
        try:
            with patch_stdout(raw=True):
                typed = session.prompt(default=draft, pre_run=self._before)
        except EOFError:
            return None
        except (
            SystemExit
        ):  # a signal, which may come before prompt_toolkit tidies up after itself, or while it does
            session.app.renderer.reset()
            session.output.disable_bracketed_paste()
            session.output.flush()
            raise
        return unquoted(said(typed, "what was typed"))

    def leave(self, error: BaseException) -> None:
        """End a prompt that is being shown, from any thread: `read` raises the error."""
        session = self._session
        if session is not None and session.app.loop is not None:

            def end() -> None:
                with suppress(Exception):  # it has ended already
                    session.app.exit(exception=error)

            session.app.loop.call_soon_threadsafe(end)

    def refresh(self) -> None:
        if self._session is not None:
            self._session.app.invalidate()

    def _before(self) -> None:
        """Start, once the first prompt is drawn, what must not delay it."""
        assert self._session
        self._session.app.after_render += self._drawn

    def _drawn(self, _app: Any) -> None:
        assert self._session
        self._session.app.after_render -= self._drawn
        self._ready()

    def _made(self) -> "PromptSession[str]":
        from prompt_toolkit import PromptSession
        from prompt_toolkit.filters import Condition
        from prompt_toolkit.output import ColorDepth, create_output

        def completing() -> bool:
            assert self._session
            return self._session.default_buffer.text.startswith("/")

        return PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=_continued,
            history=_history(self._history),
            completer=self._completer,
            complete_while_typing=Condition(completing),
            bottom_toolbar=self._toolbar,
            key_bindings=_bindings(),
            enable_suspend=True,
            color_depth=None if console.colored(sys.stdout) else ColorDepth.DEPTH_1_BIT,
            reserve_space_for_menu=4,
            output=create_output(always_prefer_tty=True),  # stdout may be a file
        )


def _continued(_width: int, _line: int, wrapped: int) -> str:
    """Mark a new line of a message; a long line that only wraps is not marked."""
    return " " * len(MORE) if wrapped else MORE


def _bindings() -> "KeyBindings":
    from prompt_toolkit.filters import emacs_mode, is_searching, vi_navigation_mode
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if is_open(buffer.text):
            buffer.newline()
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)

    @keys.add("c-g", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        _open_in_editor(event.current_buffer, sends=False)

    @keys.add("c-x", "c-e", filter=emacs_mode)
    @keys.add("v", filter=vi_navigation_mode)
    def _(event: KeyPressEvent) -> None:
        _open_in_editor(event.current_buffer, sends=True)

    @keys.add("c-c", filter=~is_searching)
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt())

    return keys


def _open_in_editor(buffer: "Buffer", *, sends: bool) -> None:
    """Let the person edit what is typed; prompt_toolkit's own way would end the prompt at a Ctrl-C that is meant for the editor."""
    from prompt_toolkit.application import run_in_terminal

    from mixcli.chat.editor import edited

    def edit() -> None:
        try:
            buffer.text = edited(buffer.text).removesuffix("\n")
        except UsageError as error:
            console.warn(str(error))
            return
        buffer.cursor_position = len(buffer.text)
        if sends:
            buffer.validate_and_handle()

    run_in_terminal(edit)


def _history(path: Path | None) -> "History":
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        """A history on a disk that may be full or not writable: what cannot be kept is remembered until the chat ends."""

        def load_history_strings(self) -> Iterable[str]:
            try:
                return list(super().load_history_strings())
            except OSError:
                return []

        def store_string(self, string: str) -> None:
            with suppress(OSError):
                super().store_string(clean(string))

    if path is None:
        return InMemoryHistory()
    with suppress(OSError):
        path.touch(mode=0o600)
    return Kept(path)
