"""The API keys of clients: from an environment variable, and from a file that is read again when it changes."""

import hashlib
import hmac
import os
import stat
from collections.abc import Callable
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.system.formatting import counted
from mixcli.system.regular_file import open_regular

MIN_KEY = 16  # characters
MAX_FILE = 1 << 20  # bytes

_Stamp = tuple[int, int, int, int]  # device, inode, size and time of change of a file


class KeyRing:
    """The keys that are valid now. A key is compared by its hash, with all of them, so the time reveals nothing about any.

    A file that is changed is read again at the next request. Where it cannot be used, the keys that it had stay, and `warn` gets the reason,
    once for each change.
    """

    def __init__(self, key: str | None, path: Path | None, warn: Callable[[str], None]) -> None:
        self._own = frozenset() if key is None else frozenset({digest(key)})
        self._path, self._warn = path, warn
        self._stamp = None if path is None else _stamp(path)
        self._listed = frozenset() if path is None else _read(path)

    def knows(self, key: str) -> bool:
        """Return whether a key is valid."""
        self._refresh()
        given = digest(key)
        return sum(hmac.compare_digest(given, known) for known in self._own | self._listed) > 0

    def _refresh(self) -> None:
        if self._path is None or (now := _stamp(self._path)) == self._stamp:
            return
        self._stamp = now
        try:
            self._listed = _read(self._path)
        except UsageError as error:
            self._warn(f"{error}; the API keys are unchanged")


def digest(key: str) -> bytes:
    """Return the hash by which a key is known."""
    return hashlib.sha256(b"mixcli serve\0" + key.encode("utf-8", "surrogateescape")).digest()


def check_key(key: str, source: str, advice: str) -> str:
    """Return a key; UsageError if it is too short to be one or cannot stand in a header."""
    if len(key) < MIN_KEY:
        have = (
            f"is {counted(len(key), 'character')} long, but a key needs at least {MIN_KEY}"
            if key
            else "is not set or empty"
        )
        raise UsageError(f"{source} {have}{advice}")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(f"{source} has characters other than printable ASCII without spaces{advice}")
    return key


def _stamp(path: Path) -> _Stamp | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_ctime_ns


def _read(path: Path) -> frozenset[bytes]:
    """Return the hashes of a file's keys, one a line, after # a comment; UsageError where others could read it or it has none."""
    try:
        with open_regular(path) as file:
            found = os.fstat(file.fileno())
            if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
                raise UsageError(f"{path} can be read or changed by other users; run `chmod 600 {path}`")
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE:
        raise UsageError(f"{path} is larger than {MAX_FILE:,} bytes; it should have one API key per line")
    keys = set()
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        key = line.strip()
        if key and not key.startswith("#"):
            keys.add(
                digest(check_key(key, f"{path}, line {number}", "; make one with: openssl rand -hex 24"))
            )
    if not keys:
        raise UsageError(f"{path} has no API key; write one per line, of {MIN_KEY} characters or more")
    return frozenset(keys)
