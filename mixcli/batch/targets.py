"""Where a batch writes, checked before anything is read or loaded: what is there, whose it is, and that nothing is written twice."""

import os
import stat
from pathlib import Path

from mixcli.errors import UsageError


def check_targets(source: str, out: Path | None, journal: Path | None, others: tuple[Path, ...] = ()) -> None:
    """Raise UsageError, or the system's OSError with the name of the path, where output or journal cannot be written, or would destroy an input."""
    for option, path in (("-o", out), ("--journal", journal)):
        if path is None:
            continue
        _check_place(option, path)
        for read in (*([Path(source)] if source != "-" else []), *others):
            if _is_same(path, read):
                raise UsageError(f"{option} {path} is what is read, and would be lost; name another file")
    if out is not None and journal is not None:
        for written in (out, part_of(out)):
            if _is_same(journal, written):
                raise UsageError(f"--journal {journal} is where the results are written; name another file")
    if out is not None and not _is_device(out):
        _check_part(part_of(out))


def part_of(out: Path) -> Path:
    """Return where an output lies while it is written: beside the file that it becomes, also where that is behind a link."""
    target = Path(os.path.realpath(out))
    return target.with_name(target.name + ".part")


def _check_place(option: str, path: Path) -> None:
    """Refuse what cannot be written; a symlink is followed, as `convert -o` does, and must lead to something."""
    if path.is_symlink() and not Path(os.path.realpath(path)).exists():
        raise UsageError(
            f"{option} {path} is a symlink to {path.readlink()}, which does not exist; remove it or name another file"
        )
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"{option} {path} is a folder; name a file")
    if mode is not None and not stat.S_ISREG(mode):
        if option == "--journal" or stat.S_ISSOCK(mode) or stat.S_ISBLK(mode):
            raise UsageError(f"{option} {path} is not a regular file; name one")
        return
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {folder}; make it first")
    writable = path if option == "--journal" and mode is not None else folder
    if not os.access(writable, os.W_OK):
        raise UsageError(f"{option} {path}: {writable} is not writable")


def _check_part(part: Path) -> None:
    """Refuse to write over something of that name that no batch has written."""
    if not part.exists() and not part.is_symlink():
        return
    if not part.is_file() or part.is_symlink():
        raise UsageError(f"{part} is in the way: results are written there first; move it away")
    with part.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise UsageError(
                f"{part} is in the way and holds no results: they are written there first; move it away"
            )


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other) and not _is_device(path)
    except OSError:
        return Path(os.path.realpath(path)) == Path(os.path.realpath(other))


def _is_device(path: Path) -> bool:
    return path.exists() and not path.is_file()
