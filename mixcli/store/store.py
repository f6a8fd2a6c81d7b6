"""The model store: one folder per model, with a manifest that records its type, files and origin.

A model is published by one rename of its finished folder (build_folder.py), so what is listed is whole. Names map to folders as `name--TYPE`.
Models that other programs downloaded are listed as well (foreign.py) and can be used by their labels.
"""

import errno
import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mixcli.errors import IntegrityError, NotInstalled, UsageError
from mixcli.store import default_model, manifest
from mixcli.store.manifest import Manifest
from mixcli.store.reference import (
    Reference,
    check_text,
    composed,
    is_path,
    is_there,
    shown,
)
from mixcli.system import paths
from mixcli.system.text import nearest
from quantize.sources.shard_names import first_shard, shard_paths

if TYPE_CHECKING:
    from mixcli.store.foreign import ForeignModel


class StoredModel(NamedTuple):
    """A GGUF that can be loaded: `path` is its first part.

    `manifest` is there for a model of the store, `seen` for one of another program; neither for a file that was named by its path.
    """

    path: Path
    manifest: Manifest | None = None
    seen: "ForeignModel | None" = None

    @property
    def label(self) -> str:
        """Return the name that a person would type for it."""
        known = self.manifest or self.seen
        return known.label if known else str(self.path)

    @property
    def parts(self) -> tuple[Path, ...]:
        """Return all files of the model, in order."""
        if self.manifest:
            return self.manifest.paths(folder_of(self.manifest))
        if self.seen:
            return self.seen.files
        parts = shard_paths(self.path)
        return parts if all(is_there(part) for part in parts) else (self.path,)


def models() -> list[StoredModel]:
    """List the store, sorted by name and type. A folder whose manifest cannot be read, or that lacks a file, is left out (damaged.py).

    Raises PermissionError for a store that this user may not read.
    """
    found = []
    for path in (home / manifest.NAME for home in manifest.homes()):
        about = manifest.read(path)
        if about and all(_is_there(path.parent / file.path, file.size) for file in about.files):
            found.append(StoredModel(path.parent / about.files[0].path, about))
    return found


def names() -> set[str]:
    """Return what the models of the store can be called by: their labels, and their names without a type."""
    return {name for model in models() for name in (model.label, _name_of(model))}


def everything() -> list[StoredModel]:
    """List the store, and after it what is seen of other programs' models and is not in the store anyway."""
    from mixcli.store import foreign

    own = models()
    known = {path.resolve() for model in own for path in model.parts}
    return own + [
        StoredModel(found.path, seen=found)
        for found in foreign.foreign_models()
        if found.path.resolve() not in known
    ]


def find(text: str | None) -> StoredModel:
    """Return the model named by `name`, `name:TYPE`, a label of another program's model, or a path.

    None means the default (`mixcli default`), or the only one there is. Of a name in several types the catalog's default is taken, else
    the first. UsageError names the next step; IntegrityError what is wrong with a damaged model of the store.
    """
    if text is None and (text := default_model.get()) is None:
        return _only(models())
    check_text(text)
    if is_path(text):
        return _by_path(text)
    if found := _named(text, models()):
        return found
    from mixcli.store import damaged

    if broken := damaged.named(text):
        raise IntegrityError(broken.sentence)
    have = everything()
    if found := _named(text, have):
        return found
    path = paths.expanded(text)
    if os.sep in text and is_there(path):
        return _by_path(text)
    if is_there(path):
        raise UsageError(f"model {shown(text)} not found; for the file or folder of that name use ./{text}")
    raise _missing(Reference.parse(text), have)


def _named(text: str, have: list[StoredModel]) -> StoredModel | None:
    """Find a label, or a name without its type, among models."""
    text = composed(text)
    name, _, file_type = text.rpartition(":")
    labels = {text, f"{name}:{file_type.upper()}"}
    if found := next((model for model in have if composed(model.label) in labels), None):
        return found
    matching = [model for model in have if composed(_name_of(model)) == text]
    if len(matching) < 2:
        return matching[0] if matching else None
    from mixcli.store.catalog import catalog

    default_type = catalog()[text].default_type if text in catalog() else None
    return next((model for model in matching if model.label == f"{text}:{default_type}"), matching[0])


def _name_of(model: StoredModel) -> str:
    return model.label.rpartition(":")[0]


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _only(have: list[StoredModel]) -> StoredModel:
    if not have:
        from mixcli.store import damaged

        if broken := damaged.damaged():
            raise IntegrityError(broken[0].sentence)
        raise NotInstalled(
            "no model is installed",
            "`mixcli pull` downloads the one that suits this machine, `mixcli pull demo` makes a small one offline",
            None,
        )
    if len(have) > 1:
        raise UsageError(
            f"several models are installed ({', '.join(m.label for m in have)}); pass one, or set the default with `mixcli default`"
        )
    return have[0]


def _by_path(text: str) -> StoredModel:
    """Return the model of a file; one of the store where the file is that model's. No store is needed for it."""
    path = paths.expanded(text)
    if not is_there(path):
        raise UsageError(absent(text, path))
    if path.is_dir():
        raise UsageError(f"{text} is a folder; convert a checkpoint folder with `mixcli pull {text}`")
    if not path.is_file():
        raise UsageError(f"{text} is a device or a pipe; use a regular file")

    path = first_shard(path)  # whichever part was named
    resolved = path.resolve()
    try:
        have = models()
    except OSError:
        have = []
    known = next((model for model in have if model.path.resolve() == resolved), None)
    return known or StoredModel(path)  # not resolved: the parts of a model lie beside its link


def absent(text: str, path: Path, hint: str = "") -> str:
    """Return the sentence on a path that is not there; `hint` takes the place of a name that is near."""
    if _leads_to_itself(path):
        return f"{shown(text)[1:-1]} is a symlink that leads to itself; remove it, or use the file itself"
    return f"no such file: {shown(text)[1:-1]}{hint or _near_path(text, path)}"


def _leads_to_itself(path: Path) -> bool:
    """Return whether a path is a symlink in a loop."""
    try:
        path.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    except ValueError:  # no file can be called so
        return False
    return False


def _near_path(text: str, path: Path) -> str:
    """Return a hint for a path that is not there: a file beside it with nearly its name, or a model that is called so."""
    name = text.removeprefix("./").rstrip("/")
    try:
        called = names()
        beside = [other.name for other in path.parent.iterdir() if other.suffix.lower() == ".gguf"]
    except OSError:
        called, beside = set(), []
    if name in called:
        return f"; did you mean the model {name}?"
    near = nearest(path.name, beside)
    return f"; did you mean {os.path.join(os.path.dirname(text), near)}?" if near else ""  # noqa: PTH118, PTH120


def _missing(reference: Reference, have: list[StoredModel]) -> UsageError:
    from mixcli.store.catalog import catalog, file_type

    labels = [model.label for model in have]
    if reference.revision and (here := _named(str(reference), have)):
        return UsageError(
            f"{here.label} is installed, but not this revision; remove @{reference.revision}, or pull it"
        )
    if reference.name in catalog():
        file_type(catalog()[reference.name], reference.type)  # a quant that it does not have cannot be pulled
    if reference.name in catalog() or reference.is_repo:
        pulled = paths.models_dir().glob(f".{as_folder(reference.name)}--{reference.type or '*'}.part")
        begun = " (its download is incomplete)" if next(iter(pulled), None) else ""
        is_chosen = reference.type is None and reference.file is None and reference.name != "demo"
        how = ", which chooses the quant that suits this machine" if is_chosen else ""
        return NotInstalled(
            f"{reference} is not installed{begun}",
            f"run `mixcli pull {reference}`{how}",
            str(reference),
        )
    known = [*labels, *(_name_of(model) for model in have), *catalog()]
    near = nearest(str(reference), known) or nearest(reference.name, known)
    hint = f"did you mean {near}?" if near else "`mixcli list` shows installed models"
    return UsageError(f"model {shown(str(reference))} not found; {hint}")


def folder_of(about: Manifest) -> Path:
    """Return the folder of a manifest."""
    return paths.models_dir() / f"{as_folder(about.name)}--{as_folder(about.type)}"


def as_folder(name: str) -> str:
    """Return a name as part of a folder's name; a changed name gets a checksum to stay unique."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "-", name).lstrip(".")
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
