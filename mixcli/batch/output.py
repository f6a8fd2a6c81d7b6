"""Write the lines of a batch: to a file that appears when complete, or to stdout."""

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mixcli.batch.output_paths import part_of
from mixcli.errors import InUse, MixcliError
from mixcli.host.protocol.messages import Fields
from mixcli.system.console import console
from mixcli.system.locks import is_still
from quantize.output_target import is_stream

MAX_TRIES = 100
Write = Callable[[str], object]


@contextmanager
def output(path: Path | None) -> Iterator[Write]:
    """Yield what writes a line. A file is written as PATH.part and renamed when it is complete. A pipe or a device is written directly; None is stdout. InUse when another batch writes the same file."""
    if path is None:
        yield console.write
        return
    if is_stream(path):
        with console.if_slow(f"waiting for a program that reads from the pipe {path}"):
            stream = path.open("w", encoding="utf-8")
        with _named(path), stream:
            yield _flushing(stream.write, stream.flush)
        return
    target, part = Path(os.path.realpath(path)), part_of(path)
    n_bytes = 0

    def write(text: str) -> None:
        nonlocal n_bytes
        n_bytes += file.write(text.encode())

    with _opened(part) as file, _named(part):
        yield write
        file.flush()
        os.fsync(file.fileno())
        if os.fstat(file.fileno()).st_size != n_bytes or not is_still(part, file.fileno()):
            raise MixcliError(
                f"{part} was changed or removed by another program while results were written; rerun the command"
            )
        part.replace(target)


def _opened(part: Path) -> BinaryIO:
    """Open the unfinished output, empty, and hold it: the lock goes with the file, so it is taken until the name is still that file's."""
    for _ in range(MAX_TRIES):
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        file = os.fdopen(handle, "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise InUse(
                f"another mixcli batch is writing {part}; wait for it or choose another output"
            ) from error
        except OSError:  # a file system without locks
            pass
        if is_still(part, handle):
            file.truncate(0)
            return file
        file.close()  # the other batch has ended and renamed it meanwhile; the next one that is opened is another file
    raise InUse(f"other batches keep writing {part}; choose another output")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add to an error of the system the name of the file that it came from."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EFBIG,
            errno.EIO,
            errno.EROFS,
        ):
            error.filename = str(path)
        raise


def _flushing(write: Callable[[str], object], flush: Callable[[], None]) -> Write:
    def line(text: str) -> None:
        write(text)
        flush()

    return line


def json_line(line: Fields) -> str:
    """Return a line of JSON; a lone surrogate stays an escape."""
    text = json.dumps(line, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(line)
    return text + "\n"
