"""The folder in which a model of the store is made, until one rename publishes it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.store import manifest
from mixcli.store.hashing import Report
from mixcli.store.manifest import Manifest
from mixcli.store.reference import are_twins, check_name, shown
from mixcli.store.store import StoredModel, as_folder, folder_of, models
from mixcli.store.waiting import Waiting
from mixcli.system import paths
from mixcli.system.durable import flush
from mixcli.system.json_cache import replace_text
from mixcli.system.locks import exclusive

MADE_FROM = "made-from"  # beside a whole file in its work folder: the identity of what it was made of


def check_new(name: str) -> str:
    """Return a name that a new model can have; UsageError for one that no model can, or that has a twin in the store."""
    name = check_name(name)
    known = (model.manifest.name for model in models() if model.manifest)
    if twin := next((other for other in known if are_twins(name, other)), None):
        raise UsageError(
            f"the name {shown(name)} differs from the model {twin} only in case; use {twin}, or choose another with --name"
        )
    return name


@contextmanager
def building(
    name: str,
    file_type: str,
    report: Report,
    revision: str | None = None,
    progress: Callable[[Path], tuple[float, float]] | None = None,
) -> Iterator[tuple[Path, StoredModel | None]]:
    """Hold the exclusive right to make `name:TYPE`; yield a work folder, or the model where it exists, of that `revision` if one is named.

    The folder survives a kill, so that an interrupted work can be resumed in it; `publish` turns it into the model. While
    another process works in it, `progress` of that folder is reported: bytes present and total.
    """
    work = work_folder(check_new(name), file_type)
    waiting = Waiting(lambda: (progress or _written)(work), report)
    with exclusive(work.with_suffix(".lock"), waiting, what=f"making {name}:{file_type}"):
        same = (model for model in models() if model.label == f"{name}:{file_type}")
        done = next(
            (m for m in same if revision is None or (m.manifest and m.manifest.revision == revision)), None
        )
        if done is None:
            paths.private(work)
        try:
            yield work, done
        finally:
            with suppress(OSError):  # only an empty folder goes: there is nothing to resume
                work.rmdir()
                work.with_suffix(".lock").unlink()


def taken(model: StoredModel, wanted: str) -> UsageError:
    """Return the error on an installed model that has the label of another one, which comes from `wanted`."""
    about = model.manifest
    return UsageError(
        f"{model.label} is already installed, from {about.origin if about else model.path}, and not from {wanted}; "
        f"pass another name with --name, or remove the other: mixcli rm {model.label}"
    )


def is_finished(target: Path, identity: str) -> bool:
    """Return whether a killed run left the whole file in its work folder, made of just what `identity` stands for."""
    try:
        return target.is_file() and target.with_name(MADE_FROM).read_text("utf-8") == identity
    except (OSError, ValueError):
        return False


def finish(target: Path, identity: str) -> None:
    """Record what a whole file was made of, so that a run that is killed before it is published need not be repeated."""
    replace_text(target.with_name(MADE_FROM), identity)


def _written(work: Path) -> tuple[float, float]:
    """Return how many bytes of a result are on the disk, and of how many."""
    parts = []
    for path in work.glob("*.gguf.part"):
        with suppress(OSError):  # it was finished, and renamed, meanwhile
            parts.append(path.stat())
    done = sum(status.st_blocks * 512 for status in parts)
    return done, max(done, sum(status.st_size for status in parts), 1)


def work_folder(name: str, file_type: str) -> Path:
    """Return the folder that a model is made in."""
    return paths.models_dir() / f".{as_folder(name)}--{as_folder(file_type)}.part"


def publish(work: Path, about: Manifest) -> StoredModel:
    """Turn a work folder into a model of the store, on the disk: manifest last, then one rename."""
    own = {file.path for file in about.files}
    for stray in work.iterdir():
        if stray.name not in own:
            shutil.rmtree(stray) if stray.is_dir() else stray.unlink()
    for path in about.paths(work):
        if path.parent == work:  # others are another program's
            flush(path)
    replace_text(work / manifest.NAME, about.to_json())
    flush(work)
    home = folder_of(about)
    if home.exists():  # a torn one, or another revision
        shutil.rmtree(home)
    work.rename(home)
    flush(home.parent)
    return StoredModel(home / about.files[0].path, about)
