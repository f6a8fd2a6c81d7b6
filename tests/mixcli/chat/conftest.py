"""A chat on a screen, with a host that plays a script behind it."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.mixcli.chat.scripted import Event, ScriptedHost, saying
from tests.support.terminal import Terminal


class Stage:
    """Begins scripted hosts and terminals in one home; both are gone after the test."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self._stack = stack

    def host(self, *answers: Iterable[Event], name: str = "model.gguf") -> ScriptedHost:
        """Start a host that gives these answers, one a question."""
        return self._stack.enter_context(ScriptedHost(self.home / name, saying(*answers)))

    def terminal(self, *args: str, rows: int = 24, columns: int = 80, **env: str) -> Terminal:
        """Start `mixcli ARGS`."""
        return self._stack.enter_context(Terminal(self.home, *args, rows=rows, columns=columns, **env))

    def shell(self, line: str) -> Terminal:
        """Start a line of the shell."""
        return self._stack.enter_context(Terminal(self.home, shell=line))

    def chat(self, host: ScriptedHost, *args: str, rows: int = 24, columns: int = 80, **env: str) -> Terminal:
        """Start a chat with a host and wait for its first prompt."""
        terminal = self.terminal("chat", "-m", str(host.path), *args, rows=rows, columns=columns, **env)
        terminal.wait_for_prompt(1)
        return terminal


@pytest.fixture
def stage(home: Path) -> Iterator[Stage]:
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield Stage(home, stack)
