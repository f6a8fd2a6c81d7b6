"""The default model: one line in the configuration folder."""

import os
from pathlib import Path

from mixcli.errors import MixcliError, UnreadableFile, UsageError
from mixcli.system import paths
from mixcli.system.json_cache import replace_text
from mixcli.system.regular_file import read_regular
from mixcli.system.text import clean, shown, strip_controls

MAX_LABEL = 4096  # bytes; a longer line is not a name
STEP = "set it again with `mixcli default MODEL`, or clear it with `mixcli default --clear`"


def get() -> str | None:
    """Return the label of the default model; None when none was chosen.

    Raises UnreadableFile or UsageError for a file that cannot be read or holds something else: which model is meant is not known then.
    """
    path = _path()
    try:
        raw = read_regular(path, MAX_LABEL + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or 0)
        raise UnreadableFile(f"the default model cannot be read from {path}: {reason}; {STEP}") from None
    label = raw.decode("utf-8-sig", "surrogateescape").strip()
    if not _is_name(label):
        raise UsageError(f"{path} does not hold the name of a model; {STEP}")
    return label or None


def set_to(label: str | None) -> None:
    """Remember a label as the default; None forgets it. UsageError for one that could not be read again."""
    path = _path()
    if label is None:
        path.unlink(missing_ok=True)
        return
    if not _is_name(label):
        raise UsageError(
            f"{shown(label)} cannot be the default model: its path is too long, or has control characters or bytes that are not UTF-8; rename it"
        )
    replace_text(path, f"{label}\n")


def forget(*labels: str) -> None:
    """Clear the default model where it is one of these; what cannot be read is left as it is."""
    try:
        label = get()
    except (MixcliError, OSError):
        return
    if label in labels:
        set_to(None)


def _path() -> Path:
    return paths.config_dir() / "default-model"


def _is_name(label: str) -> bool:
    fits = len(label.encode("utf-8", "surrogatepass")) <= MAX_LABEL
    return fits and "\n" not in label and label == clean(strip_controls(label))
