"""mixcli import: add an existing GGUF to the store, in place or as a copy."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from mixcli.errors import DoesNotFit, IntegrityError, UsageError
from mixcli.store import build_folder, gguf_names, store
from mixcli.store.about import About
from mixcli.store.hashing import Report, sha256
from mixcli.store.headers import file_type_of, has_split_experts, header_of, prompt_format, template_note
from mixcli.store.licenses import license_of
from mixcli.store.manifest import StoredFile
from mixcli.store.preflight import check_header, family_note
from mixcli.store.reference import is_there, usable_name
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes
from mixcli.system.text import shown
from mixcli.system.wsl import slow_drive_note
from quantize.errors import QuantizeError
from quantize.sources.shards import open_shards


def import_model(path: Path, name: str | None, copy: bool, report: Report) -> tuple[StoredModel, bool]:
    """Take a GGUF (any part of one in several) into the store; the second value is False when it was there already.

    Without a `name` the model is called as the file, without its type; the type is what the file's name says, else what the file
    itself says. Without `copy` the file stays where it is and belongs to the user. Raises IntegrityError for what is not a
    sound GGUF or no model that can run here, UsageError where another file has the name.
    """
    files = _parts(path)
    path = files[0]
    _check_not_of_the_store(path)
    header = header_of(files)
    if has_split_experts(header):
        raise UsageError(
            f"{path.name} stores one tensor per expert, which llama.cpp no longer supports; "
            f"merge them without loss: mixcli convert {path} -o new.gguf"
        )
    check_header(header, path.name)
    kind = gguf_names.file_type(path.name) or file_type_of(header)
    called = build_folder.check_new(name or usable_name(gguf_names.model_name(path.name).lower()))
    stated = header.get("general.license")
    about = About(
        called,
        shown(str(header.get("general.name", ""))) or gguf_names.place_of(path.name).stem,
        license_of(stated if isinstance(stated, str) else None),
        str(path),
        keeper="mixcli" if copy else "user",
        prompt=prompt_format(header),
    )
    with build_folder.building(called, kind, report) as (work, done):
        if done is not None:
            _check_same(done, files, report)
            if not copy or (done.manifest and done.manifest.keeper != "user"):
                return done, False
            paths.private(work)  # a copy takes the place of what is elsewhere
        slow = () if copy else slow_drive_note(path)
        for note in (*template_note(header, called), *family_note(header), *slow):
            console.note(f"note: {note}")
        copies = [work / file.name for file in files] if copy else []
        try:
            for file, target in zip(files, copies, strict=False):
                _copy(file, target)
            stored = [  # of the copy, as the original may change meanwhile
                StoredFile(file.name if copy else str(file), kept.stat().st_size, sha256(kept, report))
                for file, kept in zip(files, copies or files, strict=True)
            ]
        except BaseException:  # nothing resumes here
            for target in copies:
                target.unlink(missing_ok=True)
            raise
        return build_folder.publish(work, about.manifest(kind, tuple(stored))), True


def _parts(path: Path) -> list[Path]:
    """Return the files of a model by any of them; UsageError for a path that is not a file."""
    text = os.fspath(path)
    path = paths.expanded(text)
    if not is_there(path):
        known = text in store.names()
        raise UsageError(store.absent(text, path, "; that is an installed model" if known else ""))
    if not path.is_file():
        raise UsageError(
            f"{text} is not a regular file; use a .gguf file, or pull a checkpoint folder: mixcli pull {text}"
        )
    try:
        return list(open_shards(path).paths)
    except QuantizeError as error:
        raise IntegrityError(str(error)) from error


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or hard-link it if possible, since a GGUF is never changed in place."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        need, free = source.stat().st_size, shutil.disk_usage(target.parent).free
        if free < need:
            raise DoesNotFit(
                f"the copy needs {format_bytes(need)}, but {target.parent.parent} has {format_bytes(free)} free; "
                "free some space, or import the file in place without --copy"
            ) from None
        shutil.copyfile(source, target)


def _check_not_of_the_store(path: Path) -> None:
    """Refuse a file that mixcli made itself: removing one of the two names would take the file from the other."""
    resolved = path.resolve()
    for model in store.models():
        about = model.manifest
        if about and about.keeper == "mixcli" and resolved in {part.resolve() for part in model.parts}:
            raise UsageError(f"{path} is the file of the model {model.label}; use it by that name")


def _check_same(done: StoredModel, files: Sequence[Path], report: Report) -> None:
    """Raise UsageError where the model of that name and type is of another file."""
    about = done.manifest
    assert about is not None
    if about.origin == str(files[0]) and about.keeper == "user":
        return
    if [file.size for file in about.files] != [file.stat().st_size for file in files] or any(
        file.sha256 != sha256(path, report) for file, path in zip(about.files, files, strict=True)
    ):
        raise UsageError(
            f"{done.label} is already installed, from {about.origin}, but {files[0]} is another file; "
            f"pass another name with --name, or remove the other: mixcli rm {done.label}"
        )
