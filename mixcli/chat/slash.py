"""Commands inside a chat: one table."""

from collections.abc import Callable
from difflib import get_close_matches

from mixcli.console import console


class Slash:
    """Runs the lines that begin with a slash; `leaving` says that the user wants out."""

    def __init__(self, clear: Callable[[], None]) -> None:
        self.leaving = False
        self._table: dict[str, tuple[Callable[[], None], str]] = {
            "/help": (self._help, "list these commands"),
            "/clear": (clear, "forget the conversation; the system message stays"),
            "/quit": (self._quit, "leave, as Ctrl-D does"),
        }

    def run(self, line: str) -> None:
        """Do what the first word says; an unknown one is answered with the nearest known."""
        word = line.split(maxsplit=1)[0]
        if word in self._table:
            self._table[word][0]()
            return
        near = get_close_matches(word, self._table, n=1)
        console.warn(f"no command {word}; {f'did you mean {near[0]}?' if near else '/help lists them'}")

    def _help(self) -> None:
        console.note("\n".join(f"{name:8} {what}" for name, (_, what) in self._table.items()))

    def _quit(self) -> None:
        self.leaving = True
