"""Where the lines of a batch go: a file that appears whole, or stdout as they come."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mixcli.console import console

Write = Callable[[str], object]


@contextmanager
def output(path: Path | None) -> Iterator[Write]:
    """Give what writes a line. A file is written beside its place as PATH.part and takes it by a rename when all is done.

    Something that is no plain file (a pipe, a device) is written as it is; None is stdout.
    """
    if path is None:
        yield console.write
        return
    if path.exists() and not path.is_file():
        with path.open("w", encoding="utf-8") as file:
            yield _flushing(file.write, file.flush)
        return
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        yield file.write
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _flushing(write: Callable[[str], object], flush: Callable[[], None]) -> Write:
    def line(text: str) -> None:
        write(text)
        flush()

    return line


def json_line(line: Mapping[str, Any]) -> str:
    """Give a line of JSON; half a character, as a server may write it, stays the escape that it was."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(line)
    return text + "\n"
