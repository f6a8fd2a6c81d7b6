"""Cache compiled kernels and their check results, one folder per environment that could change bytes."""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from contextlib import suppress
from functools import cache
from pathlib import Path

from quantize import bindings

_KEPT = 4  # environments: virtual environments and versions that may be used again


@cache
def folder() -> Path | None:
    """Return the user's folder for this CPU, library, numba, Python and version of the kernels; None where nothing can be written."""
    import platformdirs

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    base = Path(chosen, "mixcli") if chosen else platformdirs.user_cache_path("mixcli", appauthor=False)
    place = base / "kernels" / _environment()
    try:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.utime(place)
        others = sorted(place.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    except OSError:
        return None
    if not os.access(place, os.W_OK):
        return None
    for old in others[:-_KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return place


def _environment() -> str:
    from numba.core.registry import cpu_target  # half a second, and it may be missing

    library = bindings.library("ggml-base")
    facts = [
        *(f"{package} {importlib.metadata.version(package)}" for package in ("numba", "llvmlite")),
        f"{platform.python_implementation()} {platform.python_version()}",
        " ".join(cpu_target.target_context.codegen().magic_tuple()),  # the CPU and its features
        f"{library} {library.stat().st_size} {library.stat().st_mtime_ns}",
    ]
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(
        b"\0".join([*map(str.encode, facts), *(path.read_bytes() for path in sources)])
    ).hexdigest()[:16]


def recall(place: Path | None, name: str) -> bool | None:
    """Return the verdict kept under this name, or None."""
    verdict = _verdicts(place).get(name)
    return verdict if isinstance(verdict, bool) else None


def remember(place: Path | None, name: str, verdict: bool) -> None:
    """Keep a verdict; where that fails it will be found again."""
    if place is None:
        return
    part = place / f"verdicts.{os.getpid()}.part"
    with suppress(OSError):
        part.write_text(json.dumps({**_verdicts(place), name: verdict}, indent=1), "utf-8")
        part.replace(place / "verdicts.json")


def _verdicts(place: Path | None) -> dict[str, object]:
    with suppress(OSError, ValueError):
        if place is not None:
            known = json.loads((place / "verdicts.json").read_text("utf-8"))
            return known if isinstance(known, dict) else {}
    return {}


__all__ = ["folder", "recall", "remember"]
