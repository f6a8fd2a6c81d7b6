"""Let the user edit a text in $VISUAL or $EDITOR."""

import codecs
import os
import shlex
import signal
import tempfile
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.system.stdin import decode

EDITOR = "vi"


def edited(text: str) -> str:
    """Let the person edit a text in $VISUAL or $EDITOR; UsageError when that does not work. In the main thread, where the terminal is as programs expect it."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR
    handle, name = tempfile.mkstemp(suffix=".md", prefix="mixcli-")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        code = _ended([*shlex.split(command), name])
        if code:
            raise UsageError(f"the editor {command} failed (exit code {code}); nothing was sent")
        return draft_text(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"the editor {command!r} cannot be started: {error}; set EDITOR") from None
    finally:
        path.unlink(missing_ok=True)


def _ended(command: list[str]) -> int:
    """Run a program that has the terminal, and Ctrl-C with it: vi and others give it a meaning of their own. Return its exit code."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        pid = os.posix_spawnp(command[0], command, os.environ, setsigdef=[signal.SIGINT])
        try:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:  # this process ends
            os.kill(pid, signal.SIGHUP)
            raise
    finally:
        signal.signal(signal.SIGINT, before)


def draft_text(raw: bytes) -> str:
    """Return what an editor saved, which may be UTF-16; replace and count invalid bytes, so that no typed text is lost."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode()
    return decode(raw)
