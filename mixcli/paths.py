"""Where mixcli keeps things: one function a place, each folder private to the user (0700).

`MIXCLI_HOME` puts all of them under one folder (tests, portable installs); otherwise the platform's own places are used.
Nothing is created before it is needed.
"""

import errno
import hashlib
import os
import tempfile
from pathlib import Path

import platformdirs

MAX_RUNTIME_PATH = 70  # bytes; a socket in it has 21 more, and 104 is the least that a system allows


def _place(kind: str) -> Path:
    if home := os.environ.get("MIXCLI_HOME"):
        path = Path(home).expanduser() / kind
    else:
        path = Path(getattr(platformdirs, f"user_{kind}_dir")("mixcli", appauthor=False))
    return private(path)


def private(path: Path) -> Path:
    """Make a folder that only this user can enter, with its parents, and give it back."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def cache_dir() -> Path:
    """What can be made again: self-test results, compiled kernels."""
    return _place("cache")


def config_dir() -> Path:
    """What the user wrote: config.toml, profiles, personas."""
    return _place("config")


def data_dir() -> Path:
    """What must not be lost: models, conversations."""
    return _place("data")


def models_dir() -> Path:
    """The store: one folder a model."""
    return private(data_dir() / "models")


def runtime_dir() -> Path:
    """Sockets, locks and logs of running hosts: in XDG_RUNTIME_DIR where there is one, else in the cache.

    A unix socket's path may have about 100 bytes; where that folder is deeper, a private one under the temporary folder takes its
    place. A folder that another user owns is refused.
    """
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and not os.environ.get("MIXCLI_HOME") and Path(session).is_dir():
        path = private(Path(session) / "mixcli")
    else:
        path = private(cache_dir() / "run")
    if len(os.fsencode(path)) > MAX_RUNTIME_PATH:
        digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
        path = private(Path(tempfile.gettempdir()) / f"mixcli-{os.getuid()}-{digest}")
    status = path.lstat()
    if status.st_uid != os.getuid() or path.is_symlink():
        raise PermissionError(
            errno.EPERM,
            "belongs to someone else; remove it or set MIXCLI_HOME to a folder of your own",
            os.fspath(path),
        )
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path
