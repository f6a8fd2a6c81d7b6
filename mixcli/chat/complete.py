"""Tab completion of slash commands and their arguments."""

from collections.abc import Callable, Iterable, Mapping

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

PATH = "path"
Words = Iterable[str] | str
Table = Mapping[str, tuple[Callable[[], Words], str]]


class SlashCompleter(Completer):
    """Completes the commands of a table by name, and after them the words that their row gives, or paths where it gives PATH.

    The table is asked for when the first slash is typed.
    """

    def __init__(self, table: Callable[[], Table]) -> None:
        self._table = table
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text.partition(" ")
        table = self._table()
        if not space:
            for command, (_, what) in table.items():
                if command.startswith(name):
                    yield Completion(command, -len(name), display_meta=what)
            return
        words = table[name][0]() if name in table else ()
        if words == PATH:
            yield from self._paths.get_completions(Document(rest, len(rest)), event)
        else:
            yield from (Completion(word, -len(rest)) for word in words if word.startswith(rest))
