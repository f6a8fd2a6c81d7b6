"""The default model: one line in the configuration folder."""

from mixcli.system import paths
from mixcli.system.json_cache import replace_text
from mixcli.system.regular_file import read_regular

MAX_LABEL = 4096  # bytes; a longer line is not a name


def get() -> str | None:
    """Return the label of the default model; None when none was chosen."""
    try:
        label = read_regular(paths.config_dir() / "default-model", MAX_LABEL + 1).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return label if 0 < len(label) <= MAX_LABEL and label.isprintable() else None


def set_to(label: str | None) -> None:
    """Remember a label as the default; None forgets it."""
    path = paths.config_dir() / "default-model"
    if label is None:
        path.unlink(missing_ok=True)
        return
    replace_text(path, f"{label}\n")
