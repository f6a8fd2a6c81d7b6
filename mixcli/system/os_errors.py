"""Translate operating system errors into messages and exit codes, one for each errno.

Imported only when something went wrong.
"""

import errno
import os
import tempfile
from pathlib import Path

from mixcli.errors import DoesNotFit, IntegrityError, MixcliError, NotReachable, UsageError
from mixcli.system.text import missing, shown

DEVICE = "the output device"
NO_THREAD = "can't start new thread"  # of the RuntimeError that Python makes of EAGAIN
TEMPORARY = ("mixcli-", "quantize-", "tmp")  # how the names of temporary files begin

TOO_MANY = "no further process or thread can be started; close other programs, or raise the limits (`ulimit -u`, `ulimit -v`)"
# (our exception, the message); {where} is the file or device, {variable} the variable that moves it
_MEANINGS: dict[int, tuple[type[MixcliError], str]] = {
    errno.ENOSPC: (DoesNotFit, "no space left on {where}; free some, or {variable}, and rerun the command"),
    errno.EDQUOT: (
        DoesNotFit,
        "{where}: the disk quota is used up; free some space, or {variable}, and rerun the command",
    ),
    errno.EFBIG: (DoesNotFit, "{where}: larger than this file system or `ulimit -f` allows; {variable}"),
    errno.ENOMEM: (DoesNotFit, "{where}: not enough memory; close other programs and rerun the command"),
    errno.EROFS: (MixcliError, "{where}: the file system is read-only; {variable}"),
    errno.EACCES: (MixcliError, "{where}: permission denied; change its permissions, or {variable}"),
    errno.EPERM: (MixcliError, "{where}: {said}; change its permissions or owner, or {variable}"),
    errno.EIO: (
        IntegrityError,
        "{where}: the disk reported an input/output error; check the kernel log (dmesg)",
    ),
    errno.ESTALE: (
        MixcliError,
        "{where}: stale file handle on a network file system; rerun the command",
    ),
    errno.EMFILE: (MixcliError, "too many open files; raise the limit with `ulimit -n`"),
    errno.ENFILE: (MixcliError, "too many open files on this machine; close other programs"),
    errno.ENAMETOOLONG: (UsageError, "{where}: name too long for this file system; use a shorter one"),
    errno.ELOOP: (UsageError, "{where}: a symlink that is not allowed, or a symlink loop; remove it, or use the file itself"),
    errno.ETXTBSY: (MixcliError, "{where}: the file is a running program; wait until it has ended"),
    errno.EBUSY: (MixcliError, "{where}: in use by another program; wait until it has ended"),
    errno.EAGAIN: (MixcliError, TOO_MANY),
    errno.ENOTDIR: (MixcliError, "{where}: a file has the name of a needed folder; move it away, or {variable}"),
    errno.EISDIR: (UsageError, "{where}: is a folder; use a file"),
    errno.ECONNREFUSED: (NotReachable, "{where}: connection refused"),
    errno.ECONNRESET: (NotReachable, "{where}: the connection was reset; rerun the command"),
    errno.ENETUNREACH: (NotReachable, "{where}: the network is unreachable; check the network"),
    errno.EHOSTUNREACH: (NotReachable, "{where}: the host is unreachable; check the network"),
    errno.ETIMEDOUT: (NotReachable, "{where}: timed out; rerun the command"),
}  # fmt: skip
_NOT_A_FILE = {errno.EISDIR, errno.ELOOP}
# a folder that could not be made earlier looks absent, or like a file, to what wants to write into it
_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EEXIST}


def translated(error: BaseException) -> MixcliError | None:
    """Return what a refusal of the system means, in whatever exception it comes; None for other errors."""
    if isinstance(error, RuntimeError) and str(error) == NO_THREAD:
        error = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return explain(error) if isinstance(error, OSError) else None


def explain(error: OSError) -> MixcliError:
    """Return the error in one sentence, with its exit code; the file's name may be unknown."""
    code, path = error.errno or 0, _path(error)
    if code == errno.ENOENT and _is_nowhere() and (path is None or not path.is_absolute()):
        return UsageError("the current folder no longer exists; change to another one")
    advice = _advice(path)  # for what was wanted, not for the folder above it that refuses
    kind, sentence = _MEANINGS.get(code, (MixcliError, "{where}: {said}"))
    if path is not None and code in _MISSING and variable_of(path) in {"MIXCLI_HOME", "HF_HOME"}:
        if cause := _unwritable(path):
            code, path = cause
            kind, sentence = _MEANINGS[code]
        elif not path.parent.exists():
            path, sentence = path.parent, "{where}: this folder cannot be created; {variable}"
    elif code in _NOT_A_FILE and path is not None and variable_of(path) == "MIXCLI_HOME":
        kind, sentence = MixcliError, "{where}: a folder or link has the name of a needed file; remove it"
    elif code == errno.ENOENT and path is not None and variable_of(path) in {None, "TMPDIR"}:
        return UsageError(missing(path))
    said = error.strerror or str(error) or type(error).__name__
    if code == errno.EAGAIN and said != os.strerror(code):  # a write that would block
        kind, sentence = MixcliError, "{where}: {said}"
    if path is None and code not in {errno.ENOSPC}:
        sentence = sentence.removeprefix("{where}: ")
    return kind(sentence.format(where=shown(path) if path else DEVICE, said=said, variable=advice).strip())


def _is_nowhere() -> bool:
    """Return whether the current folder was removed."""
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _path(error: OSError) -> Path | None:
    """Return the file that an error names: where something should be written, if it names two."""
    for name in (error.filename2, error.filename):
        if isinstance(name, str | bytes) and name:
            return Path(os.fsdecode(name))
    return None


def _unwritable(path: Path) -> tuple[int, Path] | None:
    """Return why nothing can be made at a path of mixcli's own, as (errno, place); None when it seems that it could be."""
    for place in path.parents:
        try:
            if not place.is_dir():
                if os.path.lexists(place):
                    return errno.ENOTDIR, place
                continue
            if os.access(place, os.W_OK | os.X_OK):
                return None
            return (errno.EROFS if os.statvfs(place).f_flag & os.ST_RDONLY else errno.EACCES), place
        except OSError:
            continue
    return None


def variable_of(path: Path) -> str | None:
    """Return the environment variable that decides where a path is; None for a path that the user named."""
    from mixcli.system import paths

    try:
        roots = [("MIXCLI_HOME", root) for root in paths.roots()] + [
            ("HF_HOME", paths.hub_cache_dir()),
            ("TMPDIR", Path(tempfile.gettempdir())),
        ]
    except OSError:  # no temporary folder anywhere
        return None
    around = [(len(root.parts), name, root) for name, root in roots if path.is_relative_to(root)]
    if not around:
        return None
    _, name, root = max(around)  # the nearest of them
    return None if name == "TMPDIR" and not _is_temporary(path, root) else name


def _is_temporary(path: Path, root: Path) -> bool:
    """Return whether a path in the folder of temporary files is one of ours: people write their own files there too."""
    own = path.relative_to(root).parts
    return not own or own[0].startswith(TEMPORARY)


def _advice(path: Path | None) -> str:
    variable = variable_of(path) if path else None
    return f"set {variable} to a folder that you can write" if variable else "use another path"
