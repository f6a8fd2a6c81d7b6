"""The chat loop: read a line, stream the answer, keep the conversation."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

from mixcli.answer import INTERRUPTED, ask
from mixcli.chat.slash import Slash
from mixcli.console import console
from mixcli.errors import MixcliError, ModelDied
from mixcli.host.process import Host

PROMPT = ">>> "


class Repl:
    """One conversation.

    `load` gives the loaded model and is called again when its process has died. `sampling` holds the fields of the chat completion
    request beside the messages. An answer that is interrupted stays in the conversation as far as it came; a question that could
    not be answered is taken back, so that it can be asked again.
    """

    def __init__(self, load: Callable[[], Host], system: str | None, sampling: dict[str, Any]) -> None:
        self._load = load
        self._host = load()
        self._system = [{"role": "system", "content": system}] if system else []
        self._sampling = sampling
        self.messages = list(self._system)

    def run(self) -> None:
        """Talk until the user leaves or stdin ends; Ctrl-C at the prompt raises KeyboardInterrupt."""
        slash = Slash(self.clear)
        if sys.stdin.isatty():
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  line editing for input()
            console.note(
                f"{self._host.name.label} is loaded. Ctrl-C stops an answer, Ctrl-D leaves, /help lists commands."
            )
        try:
            while not slash.leaving and (line := self._read()) is not None:
                if line.startswith("/"):
                    slash.run(line)
                elif line.strip():
                    self._turn(line)
        finally:
            self._host.leave()

    def clear(self) -> None:
        """Forget the conversation, but not the system message."""
        self.messages = list(self._system)

    @staticmethod
    def _read() -> str | None:
        try:
            return input(PROMPT if sys.stdin.isatty() else "")
        except EOFError:
            if sys.stdin.isatty():
                console.line()
            return None

    def _turn(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})
        try:
            answer = ask(self._host, {"messages": self.messages, **self._sampling}, keep_interrupted=True)
        except ModelDied as error:
            self.messages.pop()
            console.warn(f"{error}; the conversation is kept, and the model is loaded again now")
            self._host.leave()
            self._host = self._load()
            return
        except MixcliError as error:
            self.messages.pop()
            console.warn(str(error))
            return
        if answer.finish_reason == INTERRUPTED:
            console.note("(stopped)")
        self.messages.append({"role": "assistant", "content": answer.text})
