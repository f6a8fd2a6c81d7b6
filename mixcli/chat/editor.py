"""Let the user edit a text in $VISUAL or $EDITOR."""

import codecs
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mixcli.chat.input import other_program
from mixcli.errors import UsageError
from mixcli.system.stdin import decode

if TYPE_CHECKING:
    pass


EDITOR = "vi"


def edited(text: str) -> str:
    """Let the person edit a text in $VISUAL or $EDITOR; UsageError when that does not work."""
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or EDITOR
    handle, name = tempfile.mkstemp(suffix=".md", prefix="mixcli-")
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        with other_program():
            done = subprocess.run([*shlex.split(command), name], check=False)
        if done.returncode:
            raise UsageError(f"the editor {command} failed (exit code {done.returncode}); nothing was sent")
        return draft_text(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"the editor {command!r} cannot be started: {error}; set EDITOR") from None
    finally:
        path.unlink(missing_ok=True)


def draft_text(raw: bytes) -> str:
    """Return what an editor saved, which may be UTF-16; replace and count invalid bytes, so that no typed text is lost."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raw = raw.decode("utf-16", "replace").encode()
    return decode(raw)
