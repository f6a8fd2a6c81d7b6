"""mixcli pull: what a person names is found out, planned and brought into the store."""

import os
from pathlib import Path

from mixcli import file_types as types
from mixcli.errors import UsageError
from mixcli.hub import build, store
from mixcli.hub.catalog import entry, file_type
from mixcli.hub.hashing import Report
from mixcli.hub.reference import Reference


def pull(
    text: str, output_type: str | None, name: str | None, report: Report
) -> tuple[store.StoredModel, bool]:
    """Bring the model that `text` names into the store; the second value is False when it was there already."""
    folder = Path(text).expanduser()
    if folder.is_dir() and (
        os.sep in text or text.startswith(".") or not Reference.parse(text).name.isidentifier()
    ):
        return build.from_folder(folder.resolve(), types.file_type(output_type or "Q4_K_M"), name, report)
    if text.endswith(".gguf"):
        raise UsageError(f"{text} is a GGUF already; use it as it is (-m {text}), or mixcli import {text}")
    reference = Reference.parse(text)
    if reference.type and output_type and reference.type != output_type:
        raise UsageError(f"{text} and --type {output_type} name two types; give one of them")
    known = entry(reference.name)
    return build.demo(known, file_type(known, reference.type or output_type), report)
