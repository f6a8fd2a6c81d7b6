"""The models on this machine: one folder each with the GGUF and a manifest that says what it is and where it came from.

A model is published by one rename of its finished folder, so what is listed is whole. Names map to folders as `name--TYPE`.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path

from mixcli import paths
from mixcli.errors import UsageError
from mixcli.hub.catalog import Reference, catalog
from mixcli.locks import exclusive

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What is known of a model: `size` is bytes, `sha256` of the GGUF, `created` ISO 8601 in UTC."""

    name: str
    type: str
    file: str
    size: int
    sha256: str
    description: str
    licence: str
    licence_words: str
    origin: str
    created: str


@dataclass(frozen=True)
class StoredModel:
    """A GGUF that can be loaded; `manifest` is None for a file outside the store that was named by its path."""

    path: Path
    manifest: Manifest | None

    @property
    def label(self) -> str:
        """Give the name that a person would type for it."""
        return f"{self.manifest.name}:{self.manifest.type}" if self.manifest else str(self.path)


def models() -> list[StoredModel]:
    """List the store, sorted by name and type. A folder whose manifest cannot be read is left out."""
    found = []
    for manifest_file in sorted(paths.models_dir().glob(f"*--*/{MANIFEST}")):
        try:
            manifest = Manifest(**json.loads(manifest_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            continue
        path = manifest_file.parent / manifest.file
        if path.is_file():
            found.append(StoredModel(path, manifest))
    return found


def find(text: str | None) -> StoredModel:
    """Give the model that is meant by `name`, `name:TYPE` or a path; None means the only one there is.

    Of a name in several types the catalog's default is taken, else the first. UsageError names the next step.
    """
    have = models()
    if text is None:
        return _only(have)
    if _is_path(text):
        return _by_path(Path(text).expanduser(), have)
    reference = Reference.parse(text)
    matching = [m for m in have if m.manifest and m.manifest.name == reference.name]
    if reference.type:
        matching = [m for m in matching if m.manifest and m.manifest.type == reference.type]
    if not matching:
        raise _missing(reference, have)
    default = catalog()[reference.name].default_type if reference.name in catalog() else None
    return next((m for m in matching if m.manifest and m.manifest.type == default), matching[0])


def _is_path(text: str) -> bool:
    return text.endswith(".gguf") or "/" in text or text.startswith((".", "~"))


def _only(have: list[StoredModel]) -> StoredModel:
    if not have:
        raise UsageError("there is no model yet; `mixcli pull demo` brings a small one, without the network")
    if len(have) > 1:
        raise UsageError(f"which model? say -m {' or -m '.join(m.label for m in have)}, or set MIXCLI_MODEL")
    return have[0]


def _by_path(path: Path, have: list[StoredModel]) -> StoredModel:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; `mixcli pull {path}` makes a model of a checkpoint folder")
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    resolved = path.resolve()
    return next((m for m in have if m.path == resolved), StoredModel(resolved, None))


def _missing(reference: Reference, have: list[StoredModel]) -> UsageError:
    labels = [m.label for m in have]
    if reference.name in catalog():
        return UsageError(f"{reference} is not on this machine; `mixcli pull {reference}` brings it")
    near = get_close_matches(
        str(reference), [*labels, *(m.manifest.name for m in have if m.manifest), *catalog()], n=1
    )
    hint = f"did you mean {near[0]}?" if near else "`mixcli list` shows what is here."
    return UsageError(f"no model is called {str(reference)!r}; {hint}")


@contextmanager
def building(name: str, file_type: str) -> Iterator[tuple[Path, StoredModel | None]]:
    """Hold the one right to make `name:TYPE`: gives a work folder, or the model when somebody else has made it meanwhile.

    The folder survives a kill, so that an interrupted conversion can resume in it; `publish` turns it into the model.
    """
    work = paths.models_dir() / f".{_folder(name, file_type)}.part"
    with exclusive(work.with_suffix(".lock")):
        done = next((m for m in models() if m.label == f"{name}:{file_type}"), None)
        if done is None:
            paths.private(work)
        yield work, done


def publish(work: Path, manifest: Manifest) -> StoredModel:
    """Turn a work folder into a model of the store: manifest last, then one rename."""
    for stray in work.iterdir():
        if stray.name != manifest.file:
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
    (work / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n", "utf-8")
    home = paths.models_dir() / _folder(manifest.name, manifest.type)
    if home.exists():  # a torn one: listed models are never built again
        shutil.rmtree(home)
    work.rename(home)
    return StoredModel(home / manifest.file, manifest)


def now() -> str:
    """Give the present moment as it stands in a manifest."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _folder(name: str, file_type: str) -> str:
    return f"{re.sub(r'[^A-Za-z0-9._-]', '-', name)}--{file_type}"
