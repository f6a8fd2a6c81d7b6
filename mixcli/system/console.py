"""All output: answers and data to stdout; notes, progress and errors to stderr.

Each stream is checked separately for a terminal. Text for a terminal loses its control characters (a model's output is data, not
commands to the terminal); an answer for a pipe or file is passed on as it is, a table loses them there too. rich is imported only when a table or a bar is drawn.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, TypeVar

from mixcli.errors import EXIT_INTERRUPTED, MixcliError, UsageError
from mixcli.system.text import clean, cut_words, strip_controls

if TYPE_CHECKING:
    from pathlib import Path

    from rich import progress
    from rich.console import Console as RichConsole

T = TypeVar("T")

SLOW = 5.0  # seconds of a silent wait before a note explains it
EVERY = 30.0  # seconds between two lines of progress where no bar can be drawn
MIN_WIDTH, WIDTH, MAX_WIDTH = 20, 80, 1000  # limits and default of the width in columns
MIN_DRAWN = 60  # columns of a bar with its numbers


def _one_line(cell: str) -> str:
    """Return a cell of a table without line ends and tabs, which would make two rows or columns of it."""
    return " ".join(cell.splitlines()).replace("\t", " ") if not cell.isprintable() else cell


def _shown(text: str) -> str:
    """Return text as one line without control characters, as it may go to a terminal."""
    return strip_controls(clean(_one_line(text)))


def _width(stream: TextIO) -> int:
    """Return how many columns are drawn for: COLUMNS, else the terminal's, each where it makes sense."""
    said = os.environ.get("COLUMNS", "")
    columns = int(said) if said.isascii() and said.isdigit() and len(said) < 5 else 0
    with suppress(OSError, ValueError):
        columns = columns or os.get_terminal_size(stream.fileno()).columns
    return min(max(columns or WIDTH, MIN_WIDTH), MAX_WIDTH)


def _wrapped(text: str, stream: TextIO) -> str:
    """Return text for a terminal with line ends between words, where it would have them anywhere; COLUMNS does not change a terminal."""
    if not stream.isatty():
        return text
    from mixcli.system.wrapping import wrapped

    with suppress(OSError, ValueError):
        if columns := os.get_terminal_size(stream.fileno()).columns:
            return wrapped(text, columns)
    return wrapped(text, _width(stream))


class Bar(Protocol):
    """What a progress bar offers to the work that it shows."""

    def update(self, done: float, total: float, stage: str = "") -> None: ...


class _Silent:
    def update(self, done: float, total: float, stage: str = "") -> None: ...


class _Lines:
    """Progress for a log: a line now and then, for long work."""

    def __init__(self, console: "Console", title: str, unit: str | None) -> None:
        self._console, self._title, self._unit = console, title, unit
        self._next = time.monotonic() + 3 * SLOW

    def update(self, done: float, total: float, stage: str = "") -> None:
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + EVERY
        amount = (
            f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
            if self._unit
            else f"{100 * done / total:.0f} %"
            if total
            else ""
        )
        self._console.note(": ".join(filter(None, (stage or self._title, amount))))


class _Drawn:
    """A bar that is drawn, and rich imported, when there is something to show."""

    def __init__(self, console: "Console", title: str, unit: str | None, *, is_still: bool) -> None:
        self._console, self._title, self._unit = console, _shown(title), unit
        self._is_still = is_still
        self._bars: progress.Progress | None = None

    def update(self, done: float, total: float, stage: str = "") -> None:
        if self._bars is None:
            self._bars = self._start()
        self._bars.update(
            self._bars.task_ids[0],
            completed=done,
            total=total,
            description=_shown(stage) or self._title,
            refresh=self._is_still,
        )

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _start(self) -> "progress.Progress":
        from rich import progress

        terminal = self._console.rich(sys.stderr)
        share = progress.TaskProgressColumn()
        amount = (progress.DownloadColumn(), progress.TransferSpeedColumn()) if self._unit else (share,)
        drawn = (progress.BarColumn(), *amount, progress.TimeRemainingColumn())
        bars = progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            *(drawn if terminal.width >= MIN_DRAWN else (share,)),
            console=terminal,
            transient=True,
            auto_refresh=not self._is_still,
        )
        bars.add_task(self._title, total=None)
        bars.start()
        return bars


@contextmanager
def _named(stream: TextIO) -> Iterator[None]:
    """Add the name of the stream to a write error, which the system omits."""
    try:
        yield
    except OSError as error:
        if error.filename is None and stream in (sys.stdout, console.stdout):
            error.filename = "standard output"
        raise


class Console:
    """The only output of mixcli; `configure` is called once, by the options of a command."""

    def __init__(self) -> None:
        self.quiet = False
        self.stdout: TextIO | None = None  # where sys.stdout is not ours, but that of a library
        self.color: bool | None = None
        self._is_within_line = False  # of stdout
        self._has_bar = False

    def configure(self, *, quiet: bool | None = None, color: bool | None = None) -> None:
        """Apply the options of the command line; None keeps a setting."""
        if quiet is not None:
            self.quiet = quiet
        if color is not None:
            self.color = color

    @staticmethod
    def is_terminal(stream: TextIO | None) -> bool:
        """Return whether a stream is a terminal; a closed one is not."""
        return stream is not None and not stream.closed and stream.isatty()

    def colored(self, stream: TextIO | None) -> bool:
        """Return whether to color a stream: it is a terminal, and NO_COLOR, TERM=dumb or --no-color do not forbid it."""
        if self.color is not None:
            return self.color
        return (
            self.is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )

    # stdout: the answer

    def write(self, text: str) -> None:
        """Write a piece of the answer to stdout at once."""
        out = self.check_stdout()
        text = clean(text)
        with _named(out):
            out.write(strip_controls(text) if out.isatty() else text)
            out.flush()
        self._is_within_line = not (text or "\n").endswith("\n")

    def line(self, text: str = "") -> None:
        """Write one line to stdout."""
        self.write(text + "\n")

    def prose(self, text: str) -> None:
        """Write a line of words to stdout, on a terminal with line ends between words; those of `line` are for copying."""
        self.line(_wrapped(text, self.check_stdout()))

    def path(self, path: "Path") -> None:
        """Write a path on a line of its own: in a pipe with the bytes that it has, so that the next program finds the file."""
        out = self.check_stdout()
        if out.isatty() or not hasattr(out, "buffer"):
            self.line(_shown(str(path)))
            return
        with _named(out):
            out.flush()
            out.buffer.write(os.fsencode(path) + b"\n")
            out.flush()

    def data(self, value: Any) -> None:
        """Write a value to stdout as indented JSON."""
        import json

        self.line(json.dumps(value, ensure_ascii=False, indent=2))

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write rows to stdout: drawn by tables.py on a terminal, tab-separated lines in a pipe; a header where columns have names."""
        out = self.check_stdout()
        header = [columns] if any(columns) else []
        if not out.isatty():
            for row in (*header, *rows):
                self.line("\t".join(map(_shown, row)))
            return
        from mixcli.system.tables import drawn

        terminal = self.rich(out)
        table = drawn(columns, [[_shown(cell) for cell in row] for row in rows], terminal.width)
        with _named(out):
            terminal.print(table)

    def picture(self, lines: Iterable[Sequence[tuple[str, str]]]) -> None:
        """Write a picture to stdout: each line in pieces of text, each with a style ("#101010 on #d6604d", "bold", or "" for none)."""
        from rich.text import Text

        out = self.check_stdout()
        terminal = self.rich(out)
        with _named(out):
            for line in lines:
                pieces = [(strip_controls(text), style) for text, style in line]
                terminal.print(Text.assemble(*pieces), soft_wrap=True)

    def width(self, stream: TextIO) -> int:
        """Return how many columns are drawn for on a stream."""
        return _width(stream)

    def result(
        self,
        data: Any,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        *,
        as_json: bool,
        empty: str = "",
    ) -> None:
        """Write the result of a command to stdout: `data` as JSON, or `rows` as a table; `empty` is noted in place of a table without rows."""

        def show() -> None:
            if (shown := list(rows)) or not empty:
                self.table(columns, shown)
            else:
                self.note(empty)

        self.page(data, show, as_json=as_json)

    def page(self, data: Any, show: Callable[[], None], *, as_json: bool) -> None:
        """Write the result of a command that is more than one table: `data` as JSON, or what `show` writes."""
        if as_json:
            self.data(data)
        else:
            show()

    # stderr: everything else

    def begin_line(self) -> None:
        """End the line of an answer that broke off in a terminal, so that a note does not stand in it."""
        if self._is_within_line and self.is_terminal(sys.stdout) and self.is_terminal(sys.stderr):
            self.line()

    def note(self, text: str) -> None:
        """Print a note to stderr; --quiet silences it."""
        if not self.quiet:
            self._say(text, "2")

    def warn(self, text: str) -> None:
        """Print a warning to stderr."""
        self._say(f"warning: {text}", "33")

    def error(self, text: str) -> None:
        """Print why the command ends to stderr."""
        self._say(f"mixcli: {text}", "31")

    def can_ask(self) -> bool:
        """Return whether a person sees a question and can answer it."""
        return self.is_terminal(sys.stdin) and self.is_terminal(sys.stderr)

    def confirm(self, question: str, *, default: bool = False, otherwise: str) -> bool:
        """Ask a person on the terminal; the end of the input means no, Ctrl-C ends the command silently with 130.

        Raises UsageError where stdin or stderr is not a terminal, so that no one sees the question or answers it; `otherwise` tells what to do
        then ("pass --yes to remove x").
        """
        for name, stream in (("stdin", sys.stdin), ("stderr", sys.stderr)):
            if not self.is_terminal(stream):
                raise UsageError(f"{name} is not a terminal; {otherwise}")
        answers = {"y": True, "yes": True, "n": False, "no": False, "": default}
        try:
            return self.choose(f"{question} [{'Y/n' if default else 'y/N'}]: ", answers, at_end=False)
        except KeyboardInterrupt:
            raise SystemExit(EXIT_INTERRUPTED) from None

    def choose(self, question: str, answers: Mapping[str, T], *, at_end: T) -> T:
        """Ask a person on the terminal until a line is one of `answers`, in any case; `at_end` is the answer where the input ends."""
        while True:
            try:
                sys.stderr.write(_wrapped(strip_controls(clean(question)), sys.stderr))
                sys.stderr.flush()
                typed = sys.stdin.readline()
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                raise
            if not typed:
                sys.stderr.write("\n")
                return at_end
            if (word := typed.strip().lower()) in answers:
                return answers[word]

    @contextmanager
    def if_slow(self, text: str, seconds: float | None = None) -> Iterator[None]:
        """Print a note, once, when the block takes longer than `seconds` (SLOW): what is waited for."""
        import threading

        timer = threading.Timer(SLOW if seconds is None else seconds, self.note, (text,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def progress(
        self, title: str, unit: Literal["bytes"] | None = None, *, is_still: bool = False
    ) -> Iterator[Bar]:
        """Show a bar on stderr from the first update on; where stderr is not a terminal, a line now and then; nothing with --quiet.

        With the unit "bytes" it shows how many are done and how fast they come. One that `is_still` is drawn at updates only, since
        drawing it ten times a second takes the cores from what is measured.
        """
        if self.quiet or self._has_bar:  # one is drawn at a time
            yield _Silent()
            return
        if not self.is_terminal(sys.stderr) or os.environ.get("TERM") == "dumb":
            yield _Lines(self, title, unit)
            return
        bar, self._has_bar = _Drawn(self, title, unit, is_still=is_still), True
        try:
            yield bar
        finally:
            bar.close()
            self._has_bar = False

    def _say(self, text: str, style: str) -> None:
        err = sys.stderr
        if err is None or err.closed:
            return
        text = _wrapped(cut_words(strip_controls(clean(text))), err)
        try:
            err.write(f"\x1b[{style}m{text}\x1b[0m\n" if self.colored(err) else f"{text}\n")
            err.flush()
        except OSError:
            pass  # nothing listens on stderr; the exit code still tells

    def rich(self, stream: TextIO) -> "RichConsole":
        """Return rich's console on a stream."""
        from rich.console import Console as RichConsole

        color = self.colored(stream)
        return RichConsole(
            file=stream,
            width=_width(stream),
            no_color=not color,
            highlight=False,
            markup=False,
            emoji=False,
        )

    def check_stdout(self) -> TextIO:
        """Return stdout; MixcliError where it is closed."""
        out = self.stdout or sys.stdout
        if out is None or out.closed:
            raise MixcliError(
                "standard output is closed, so there is nowhere to write the answer; redirect it to a file or a pipe"
            )
        return out


console = Console()
