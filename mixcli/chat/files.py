"""Read files attached to a message, and write exported files."""

import re
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.system.json_cache import new_text
from mixcli.system.os_errors import explain
from mixcli.system.paths import with_home
from mixcli.system.stdin import decode
from mixcli.system.text import missing, not_text, shown

MAX_FILE = 4 << 20  # bytes; about a million tokens, more than any context


@dataclass(frozen=True)
class Attachment:
    """A text file's name and content."""

    name: str
    text: str

    def block(self) -> str:
        """Return it as a part of a message: named, and fenced so that its own fences do not end it."""
        longest = max((len(run) for run in re.findall("`{3,}", self.text)), default=2)
        fence = "`" * (longest + 1)
        return f"{self.name}:\n{fence}{Path(self.name).suffix[1:]}\n{self.text.rstrip()}\n{fence}"


def attach(text: str) -> Attachment:
    """Read a file; UsageError says why it cannot go with a message."""
    path = with_home(text.strip().strip("'\""))
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UsageError(f"{path} is a folder; choose a file in it")
        if size > MAX_FILE:
            raise UsageError(f"{path} is {size:,} bytes long; the limit is {MAX_FILE:,}; attach a part of it")
        if not path.is_file():
            raise UsageError(f"{path} is a device or a pipe; use a regular file")
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(missing(path)) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    if why := not_text(raw):
        raise UsageError(f"{path} {why}")
    return Attachment(path.name, decode(raw))


def with_files(files: list[Attachment], text: str) -> str:
    """Return a message with its files before the text."""
    return "\n\n".join([*(one.block() for one in files), text])


def write_new(path: Path, text: str) -> None:
    """Write a file that only this user can read, whole or not at all; one that is there already is not written over.

    Raises UsageError for a path that cannot be taken, MixcliError for what the system refuses.
    """
    try:
        new_text(path, text)
    except FileExistsError:
        raise UsageError(f"{path} already exists; choose another file") from None
    except FileNotFoundError:
        raise UsageError(
            f"{path}: folder {path.parent} does not exist; create it first or choose another file"
        ) from None
    except OSError as error:
        raise explain(error) from None
    except ValueError as error:  # a zero byte
        raise UsageError(f"{shown(path)} is not a valid file name ({error}); choose another one") from None
