"""The recipe of a tailored file as data: the type of every tensor, and the importance matrix by its checksum.

It stands in the GGUF's metadata under `KEY` and in a JSON file, with the same text in both: either of them repeats the file byte for byte.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quantize.errors import BadOption, CorruptFile, NeedsOption
from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix
from quantize.recipe import FILE_TYPES, tensor_type
from quantize.source import Value, text
from quantize.sources.gguf_header import MAGIC, read_header
from quantize.sources.input_file import opened, pread_exactly, read_file
from quantize.wording import counted, shown

KEY = "mixcli.recipe"
_FORMAT = 1
_MAX_FILE = 1 << 24


@dataclass(frozen=True)
class TailoredRecipe:
    """The type of every tensor by name; `file_type` is the standard type that the header names, the nearest in size.

    `imatrix_name` and `imatrix_sha256` are the file of the importance matrix, "" for none. `made_for` says in words what the file was fitted to.
    """

    types: Mapping[str, GGMLQuantizationType]
    file_type: str
    imatrix_name: str = ""
    imatrix_sha256: str = ""
    made_for: str = ""

    def to_json(self) -> str:
        """Return the text that is kept: equal recipes give equal texts."""
        data = {
            "format": _FORMAT,
            "file_type": self.file_type,
            "made_for": self.made_for,
            "imatrix": {"name": self.imatrix_name, "sha256": self.imatrix_sha256},
            "types": {name: self.types[name].name for name in sorted(self.types)},
        }
        return json.dumps(data, separators=(",", ":"))

    def metadata(self) -> dict[str, Value]:
        """Return the key by which the file records its recipe."""
        return {KEY: text(self.to_json())}

    def check_model(self, names: Iterable[str]) -> None:
        """Raise BadOption where the recipe is for a model with other tensors."""
        others = self.types.keys() ^ set(names)
        if others:
            raise BadOption(
                f"the recipe is for another model: {counted(len(others), 'tensor')} of one of the two, such as {min(others)[:80]!a}, "
                "are not in the other; choose the model that the recipe was made for."
            )

    def matching(self, imatrix: Imatrix | None) -> Imatrix | None:
        """Return the importance matrix under the name that the recipe has for it.

        Raises NeedsOption where it is not given, BadOption where another one is.
        """
        if not self.imatrix_sha256:
            if imatrix:
                raise BadOption("the recipe was made without an importance matrix; remove --imatrix.")
            return None
        named = f"{self.imatrix_name[:200]} (SHA-256 {self.imatrix_sha256[:12]}…)"
        if imatrix is None:
            raise NeedsOption(f"the recipe needs the importance matrix {named}; pass it with --imatrix.")
        if imatrix.digest != self.imatrix_sha256:
            raise BadOption(
                f"{imatrix.name} is not the importance matrix of the recipe, {named}; pass that file."
            )
        return Imatrix(self.imatrix_name, imatrix.digest, imatrix.entries, imatrix.n_chunks, imatrix.dataset)


def read_recipe(path: Path) -> TailoredRecipe:
    """Read the recipe of a JSON file or of a tailored GGUF; CorruptFile for what is neither, or has types that do not exist."""
    with opened(path) as fd:
        is_gguf = pread_exactly(fd, 0, len(MAGIC)) == MAGIC
    if is_gguf:
        raw = read_header(path).get(KEY)
        if not isinstance(raw, str):
            raise CorruptFile(
                f"{os.fspath(path)} has no recipe: it is not a tailored file; name one, or a recipe in JSON."
            )
    else:
        raw = read_file(path, _MAX_FILE).decode("utf-8", "replace")
    try:
        return _parsed(json.loads(raw))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f"{os.fspath(path)} is not a recipe ({shown(str(error))}); name the JSON file or the GGUF that mixcli tailor wrote."
        ) from None


def _parsed(data: Any) -> TailoredRecipe:
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']!r:.20}")
    types = {str(name): tensor_type(str(kind)) for name, kind in data["types"].items()}
    file_type = str(data["file_type"])
    if not types or file_type not in FILE_TYPES:
        raise ValueError("no types" if not types else f"quant {file_type:.20}")
    imatrix = data["imatrix"]
    return TailoredRecipe(
        types, file_type, str(imatrix["name"]), str(imatrix["sha256"]), str(data["made_for"])
    )


__all__ = ["KEY", "TailoredRecipe", "read_recipe"]
