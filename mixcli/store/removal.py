"""mixcli rm: remove a model's own files, and shared ones that nothing else needs."""

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mixcli.errors import IntegrityError, MixcliError, UsageError
from mixcli.store import damaged, default_model, hub_cache, store
from mixcli.store.reference import is_path
from mixcli.store.store import StoredModel
from mixcli.system import paths


@dataclass(frozen=True)
class Removal:
    """What will go: the folder `home`, and `files`; `kept` stay, each with the reason; `size` bytes become free."""

    label: str
    home: Path
    model: StoredModel | None
    files: tuple[Path, ...]
    kept: tuple[tuple[Path, str], ...]
    size: int


def plan_for(text: str) -> Removal:
    """Return what removing the model means that a person wrote, damaged or sound; UsageError where it is not clear which."""
    if is_path(text):
        path = paths.expanded(text).resolve()
        have = [one for one in store.models() if path in {part.resolve() for part in one.parts}]
        if len(have) > 1:
            labels = " and ".join(one.label for one in have)
            raise UsageError(f"{text} belongs to several models: {labels}; choose the one to remove")
        return plan(store.find(text))
    try:
        return plan(store.find(text))
    except IntegrityError:
        if (broken := damaged.named(text)) is None:
            raise
        if broken.manifest:
            return plan(StoredModel(broken.home / broken.manifest.files[0].path, broken.manifest))
        files = tuple(path for path in sorted(broken.home.rglob("*")) if not path.is_dir())
        return Removal(broken.label, broken.home, None, files, (), sum(map(_freed, files)))


def plan(model: StoredModel) -> Removal:
    """Return what removing a model means; UsageError for one that is not in the store."""
    about = model.manifest
    if about is None:
        how = f"; remove it with: {model.seen.removal}" if model.seen else ""
        whose = f"belongs to {model.seen.keeper}" if model.seen else "is not a model of the store"
        raise UsageError(f"{model.label} {whose}, so mixcli does not remove it{how}")
    others = {
        path.resolve() for other in store.models() if other.label != model.label for path in other.parts
    }
    mine = [path for path in model.parts if about.keeper != "user" and path.resolve() not in others]
    mine = [path for path in mine if os.path.lexists(path)]
    gone = tuple(path for path in mine if about.keeper != "hub" or not _has_other_pointers(path))
    why = "which was imported in place" if about.keeper == "user" else "which another model uses"
    kept = tuple((path, why) for path in model.parts if path not in gone and os.path.lexists(path))
    return Removal(about.label, store.folder_of(about), model, gone, kept, sum(map(_freed, gone)))


def _freed(path: Path) -> int:
    """Return the bytes that become free when a file goes: none while another hard link holds them."""
    try:
        status = path.stat()
    except OSError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0


def carry_out(removal: Removal) -> None:
    """Remove the manifest first, so that a torn removal is not a half model; then the files.

    Raises MixcliError where another process was quicker.
    """
    about = removal.model.manifest if removal.model else None
    home = removal.home
    for left in home.parent.glob(f".{home.name}.*gone"):  # of a removal that was killed
        shutil.rmtree(left, ignore_errors=True)
    gone = home.with_name(f".{home.name}.{os.getpid()}.gone")
    try:
        home.rename(gone)
    except FileNotFoundError:
        raise MixcliError(
            f"{removal.label} was removed by another process meanwhile; see mixcli list"
        ) from None
    if removal.model and about and about.keeper == "hub":
        etags = dict(zip(removal.model.parts, (file.sha256 for file in about.files), strict=True))
        for path in removal.files:
            _repo_of(path).forget(path, etags[path])
    with suppress(FileNotFoundError):  # another process may have removed it as above
        shutil.rmtree(gone)
    default_model.forget(removal.label, removal.label.rpartition(":")[0])


def _repo_of(pointer: Path) -> hub_cache.CachedRepo:
    """Return the repository that a file of the Hub's cache belongs to."""
    folder = next(path for path in pointer.parents if path.name.startswith("models--"))
    return hub_cache.CachedRepo(folder.name.removeprefix("models--").replace("--", "/", 1))


def _has_other_pointers(path: Path) -> bool:
    blob = path.resolve()
    return any(other != path and other.resolve() == blob for other in _repo_of(path).pointers())
