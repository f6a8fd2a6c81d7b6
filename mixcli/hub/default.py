"""The model that is meant when none is named: one line in the configuration folder."""

from mixcli import paths


def get() -> str | None:
    """Give the label of the default model; None when none was chosen."""
    try:
        return (paths.config_dir() / "default-model").read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def set_to(label: str | None) -> None:
    """Remember a label as the default; None forgets it."""
    path = paths.config_dir() / "default-model"
    if label is None:
        path.unlink(missing_ok=True)
        return
    part = path.with_suffix(".part")
    part.write_text(f"{label}\n", "utf-8")
    part.replace(path)
