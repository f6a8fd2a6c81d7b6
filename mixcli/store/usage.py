"""Record when a model was last used: the time of an empty file per model."""

import hashlib
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from mixcli.system import paths


def note(model: Path) -> None:
    """Remember that a model is used now."""
    with suppress(OSError):  # a full or read-only disk
        _mark(model).touch(mode=0o600)


def last(model: Path) -> datetime | None:
    """Return when a model was last used; None when it never was."""
    try:
        return datetime.fromtimestamp(_mark(model).stat().st_mtime, UTC)
    except OSError:
        return None


def _mark(model: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(model.absolute())).hexdigest()[:24]
    return paths.private(paths.cache_dir() / "used") / digest
