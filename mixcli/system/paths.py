"""The folders of mixcli: one function per folder, each private to the user (0700).

`MIXCLI_HOME` puts all of them under one folder (tests, portable installs); otherwise the platform's own places are used.
Nothing is created before it is needed. A folder that cannot be made (a read-only or full disk, no home) is absent for whatever reads;
what writes into it fails with the sentence of os_errors.py.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

KINDS = ("cache", "config", "data")
MAX_RUNTIME_PATH = 70  # bytes; a socket in it has 21 more, and 104 is the least that a system allows
NOWHERE = Path("/nonexistent/mixcli")  # the home of a user without a home folder
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def _root(kind: str) -> Path:
    """Return the folder of a kind; it need not exist."""
    if home := os.environ.get("MIXCLI_HOME"):
        folder = expanded(home)
        if not Path(home).is_absolute():  # children that run in another folder use the same place
            os.environ["MIXCLI_HOME"] = os.fspath(folder)
        return folder / kind
    import platformdirs

    path = Path(getattr(platformdirs, f"user_{kind}_dir")("mixcli", appauthor=False))
    return path if path.is_absolute() else NOWHERE / kind


def _place(kind: str) -> Path:
    root = _root(kind)
    if os.environ.get("MIXCLI_HOME"):
        with suppress(OSError):  # absent, as below
            root.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return private(root)


def roots() -> Iterator[Path]:
    """Return the folders that all of mixcli's own files are in; they need not exist."""
    yield from map(_root, KINDS)
    if home := os.environ.get("MIXCLI_HOME"):
        yield expanded(home)


def expanded(text: str) -> Path:
    """Return a path that a person wrote, absolute; ~ stays as it is for a user without a home folder."""
    return with_home(text).absolute()


def with_home(text: str) -> Path:
    """Return a path that a person wrote, with the home folder for ~, which stays as it is for a user without one."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  (Path.expanduser raises RuntimeError)


def private(path: Path) -> Path:
    """Make a folder that only this user can enter, with its parents, as far as that is possible, and return it.

    A folder of ours that others may write into is closed to them. Raises PermissionError for one that belongs to another user,
    NotADirectoryError for a file in its place.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fspath(path)) from None
    except OSError:  # read-only, full, not ours
        pass
    _check_owner(path)
    return path


def _check_owner(path: Path) -> None:
    """Refuse a folder of another user; root, which owns nothing on many mounts, may use any."""
    try:
        status = path.stat()
    except OSError:
        return
    me = os.geteuid()
    if me and status.st_uid not in {me, 0}:
        raise PermissionError(
            errno.EPERM,
            "belongs to another user",
            os.fspath(path),
        )
    if status.st_uid == me and status.st_mode & OTHERS_WRITE:
        with suppress(OSError):
            path.chmod(stat.S_IMODE(status.st_mode) & ~OTHERS_WRITE)


def cache_dir() -> Path:
    """Return what can be made again: self-test results, compiled kernels."""
    return _place("cache")


def config_dir() -> Path:
    """Return what the user wrote: config.toml, profiles, personas."""
    return _place("config")


def data_dir() -> Path:
    """Return what must not be lost: models, conversations."""
    return _place("data")


def models_dir() -> Path:
    """Return the store: one folder a model."""
    return private(data_dir() / "models")


def runtime_dir() -> Path:
    """Sockets, locks and logs of running hosts: in XDG_RUNTIME_DIR where there is one, else in the cache.

    A unix socket's path may have about 100 bytes; where that folder is deeper, cannot be written or takes no sockets (a Windows drive in
    WSL), a private one under the temporary folder takes its place. A folder that another user owns, or a planted link, is refused.
    """
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and not os.environ.get("MIXCLI_HOME") and Path(session).is_absolute():
        path = Path(session) / "mixcli"
        if len(os.fsencode(path)) <= MAX_RUNTIME_PATH and _is_ours(Path(session)) and _usable(path):
            return _closed(path)
    path = cache_dir() / "run"
    if len(os.fsencode(path)) > MAX_RUNTIME_PATH or not _takes_sockets(path) or not _usable(path):
        import tempfile  # with all that compresses; rarely needed

        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        path = Path(tempfile.gettempdir()) / f"mixcli-{os.getuid()}-{digest}"
        if not _usable(path):
            raise PermissionError(
                errno.EACCES,
                "no folder for sockets can be created; set MIXCLI_HOME to a writable folder",
                os.fspath(path),
            )
    return _closed(path)


def _is_ours(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:
        return False


@cache
def _takes_sockets(path: Path) -> bool:
    """Return whether the file system has unix sockets, which does not change while a process runs."""
    from mixcli.system.mounts import has_sockets  # only where MIXCLI_HOME, or no session, decides

    return has_sockets(path)


def _usable(path: Path) -> bool:
    """Make a private folder and tell whether it can be written; a link or a foreign folder counts, so that it is refused by name."""
    with suppress(OSError):
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.is_symlink() or (path.is_dir() and (os.access(path, os.W_OK | os.X_OK) or not _is_ours(path)))


def _closed(path: Path) -> Path:
    """Return a folder that only this user can enter; raises PermissionError for one of another user."""
    status = path.lstat()
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode):
        raise PermissionError(
            errno.EPERM,
            "belongs to another user; remove it or set MIXCLI_HOME to a folder of your own",
            os.fspath(path),
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def hub_cache_dir() -> Path:
    """Return the folder of the Hugging Face cache."""
    if place := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return _with_variables(place)
    home = os.environ.get("HF_HOME")
    if not home:
        home = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    return _with_variables(home) / "hub"


def _with_variables(text: str) -> Path:
    return expanded(os.path.expandvars(text))
