"""What `mixcli rm` takes away: a model's own files, and of shared ones only what nobody else needs."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.hub import default, hub_cache, store
from mixcli.hub.store import StoredModel


@dataclass(frozen=True)
class Removal:
    """What will go: `files` are deleted, `kept` stay because they are somebody else's too; `size` bytes become free."""

    model: StoredModel
    files: tuple[Path, ...]
    kept: tuple[Path, ...]
    size: int


def plan(model: StoredModel) -> Removal:
    """Return what removing a model means; UsageError for one that is not in the store."""
    about = model.manifest
    if about is None:
        how = f"; this removes it: {model.seen.removal}" if model.seen else ""
        whose = f"belongs to {model.seen.keeper}" if model.seen else "is not a model of the store"
        raise UsageError(f"{model.label} {whose}, so mixcli leaves it alone{how}")
    others = {
        path.resolve() for other in store.models() if other.label != model.label for path in other.parts
    }
    mine = [path for path in model.parts if about.keeper != "user" and path.resolve() not in others]
    blobs = {path: path.resolve() for path in mine}
    shared = {path for path in mine if about.keeper == "hub" and _has_other_pointers(path)}
    gone = tuple(path for path in mine if path not in shared)
    kept = tuple(path for path in model.parts if path not in gone)
    return Removal(model, gone, kept, sum(blobs[path].stat().st_size for path in gone))


def carry_out(removal: Removal) -> None:
    """Remove the manifest first, so that a torn removal is no half model; then the files."""
    about = removal.model.manifest
    assert about is not None
    home = store.folder_of(about)
    gone = home.with_name(f".{home.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    home.rename(gone)
    if about.keeper == "hub":
        etags = dict(zip(removal.model.parts, (file.sha256 for file in about.files), strict=True))
        for path in removal.files:
            _repo_of(path).forget(path, etags[path])
    shutil.rmtree(gone)
    if default.get() in {about.label, about.name}:
        default.set_to(None)


def _repo_of(pointer: Path) -> hub_cache.CachedRepo:
    """Return the repository that a file of the Hub's cache belongs to."""
    folder = next(path for path in pointer.parents if path.name.startswith("models--"))
    return hub_cache.CachedRepo(folder.name.removeprefix("models--").replace("--", "/", 1))


def _has_other_pointers(path: Path) -> bool:
    blob = path.resolve()
    return any(other != path and other.resolve() == blob for other in _repo_of(path).pointers())
