"""Check the output path before any work.

The one piece for every command that writes a file which a person names. Only an earlier result of its kind, or an empty regular file, is
ever replaced. A device, a FIFO or a socket of the target's name would otherwise vanish under the rename that
publishes the result, and a folder would be noticed when hours have passed. A symlink is followed, as shells, cp and compilers do: the
file that it leads to is replaced and the link stays.
"""

import os
import stat
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from quantize.errors import BadTarget, NoSpace, QuantizeError
from quantize.sources.input_file import kind_of
from quantize.wording import DISK_FULL

_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_MAGIC = b"GGUF"
_SAMPLE = 1 << 16  # bytes that identify an existing file
_LONGEST_SUFFIX = ".journal"
_NO_STDOUT = "a GGUF cannot be written to {}: it is not written in order; pass a file"


def is_stream(path: Path) -> bool:
    """Return whether a path names an open stream of this process, such as /dev/stdout, or something that cannot be replaced: a pipe, a device."""
    if str(path).startswith(_STREAMS):
        return True
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def output_target(path: Path, sources: Iterable[Path] = (), *, stdout: str = _NO_STDOUT) -> Path:
    """Return the regular file, there or not, that a result named `path` is written to; symlinks are followed.

    `sources` are the files that the result is made of, `stdout` the sentence for a path that means standard output. Raises BadTarget for a path that is something else, has no folder, or is a
    source itself; QuantizeError where this user may not write, NoSpace for a full disk.
    """
    if str(path) == "-" or str(path).startswith(_STREAMS):
        raise BadTarget(stdout.format("stdout" if str(path) == "-" else path))
    if "\0" in str(path):
        raise BadTarget(
            f"{str(path)!a} is not a valid file name: it contains a zero byte; choose another file"
        )
    target = _followed(path)
    try:
        status = target.lstat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise BadTarget(f"{path} cannot be written: {error.strerror}; choose another file") from error
    if status is not None:
        if kind := kind_of(status.st_mode):
            raise BadTarget(f"{path} is {kind}, and only a regular file can be replaced; choose another file")
        refuse_sources(path, sources)
    _check_folder(path, target)
    return target


def is_gguf(beginning: bytes) -> bool:
    """Return whether a file begins as a GGUF does."""
    return beginning.startswith(_MAGIC)


def refuse_foreign(
    path: Path, is_own: Callable[[bytes], bool] = is_gguf, what: str = "is not a GGUF"
) -> None:
    """Raise BadTarget for a file that is not an earlier result, as `is_own` tells by its first bytes; an empty file is replaced too."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_SAMPLE)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BadTarget(f"{path} cannot be read: {error.strerror}; choose another file") from error
    if beginning and not is_own(beginning):
        raise BadTarget(f"{path} exists and {what}; remove it or choose another file")


def _followed(path: Path) -> Path:
    """Follow the symlinks of a path; a link that leads nowhere, or in a circle, is refused."""
    try:
        if not path.is_symlink():
            return path
        return path.resolve(strict=True)
    except FileNotFoundError:
        raise BadTarget(f"{path} is a symlink to {path.readlink()}, which does not exist; remove it or choose another file") from None  # fmt: skip
    except (OSError, RuntimeError) as error:  # Python 3.11 and 3.12 raise RuntimeError for a loop
        reason = error.strerror if isinstance(error, OSError) else "too many levels of symbolic links"
        raise BadTarget(f"{path} cannot be written: {reason}; choose another file") from error


def refuse_sources(path: Path, sources: Iterable[Path]) -> None:
    """Raise BadTarget for a path that is one of the files that a result is made of, under whatever name; it need not exist."""
    files = tuple(sources)
    try:
        status = path.stat()
    except OSError:
        return
    for source in files:
        try:
            same = os.path.samestat(status, source.stat())
        except OSError:
            continue
        if same:
            other = "" if source == path else f", under another name: {source}"
            what = "is the source itself" if len(files) == 1 else "is a file of the source itself"
            raise BadTarget(f"{path} {what}{other}; choose another output name")


def _check_folder(path: Path, target: Path) -> None:
    """Try what the work will do: a file with the longest of its names, in the target's folder."""
    folder = target.absolute().parent
    if not folder.is_dir():
        missing = "is not a folder" if folder.exists() else "does not exist"
        raise BadTarget(f"the folder of {path} {missing}: {folder}; create it first")
    try:
        Path(f"{target}{_LONGEST_SUFFIX}").lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise BadTarget(f"{path} cannot be written: {error.strerror}; choose another file") from error
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        if error.errno in DISK_FULL:
            raise NoSpace(
                f"the disk of {folder} is full; free some space, or write to another disk"
            ) from error
        raise QuantizeError(
            f"{folder} cannot be written to: {error.strerror}; choose another folder with -o"
        ) from error


__all__ = ["is_gguf", "is_stream", "output_target", "refuse_foreign", "refuse_sources"]
