"""The recipe of a tailored file as data: the type of every tensor, and the importance matrix by its checksum.

It stands in the GGUF's metadata under `KEY` and in a JSON file, with the same text in both: either of them repeats the file byte for byte.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from quantize.errors import BadOption, CorruptFile, NeedsOption, Unsupported
from quantize.ggml_types import GGMLQuantizationType
from quantize.imatrix import Imatrix
from quantize.recipe import FILE_TYPES, base_type, stays_float, tensor_type
from quantize.source import TensorSource, Value, text
from quantize.sources.folder import refuse_wide
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

    def check_model(self, tensors: Sequence[TensorSource]) -> None:
        """Raise BadOption where the recipe is for a model with other tensors, or quantizes what no file has quantized."""
        others = self.types.keys() ^ {tensor.name for tensor in tensors}
        if others:
            raise BadOption(
                f"the recipe is for another model: {counted(len(others), 'tensor')}, such as {min(others)[:80]!a}, "
                f"{'are' if len(others) > 1 else 'is'} in one of the two only; choose the model that the recipe was made for"
            )
        for tensor in tensors:
            if stays_float(tensor) and (chosen := self.types[tensor.name]) != (kept := base_type(tensor)):
                raise BadOption(
                    f"the recipe has {chosen.name} for {tensor.name}, which stays {kept.name}: vectors, norms and routers are not quantized; "
                    "use the recipe that mixcli tailor wrote"
                )

    def matching(self, imatrix: Imatrix | None) -> Imatrix | None:
        """Return the importance matrix under the name that the recipe has for it.

        Raises NeedsOption where it is not given, BadOption where another one is.
        """
        if not self.imatrix_sha256:
            if imatrix:
                raise BadOption("the recipe was made without an importance matrix; remove --imatrix")
            return None
        named = f"{self.imatrix_name[:200]} (SHA-256 {self.imatrix_sha256[:12]}…)"
        if imatrix is None:
            raise NeedsOption(f"the recipe needs the importance matrix {named}; pass it with --imatrix")
        if imatrix.digest != self.imatrix_sha256:
            raise BadOption(
                f"{imatrix.name} is not the importance matrix of the recipe, {named}; pass that file"
            )
        return replace(imatrix, name=self.imatrix_name)


def read_recipe(path: Path) -> TailoredRecipe:
    """Read the recipe of a JSON file or of a tailored GGUF; CorruptFile for what is neither, or has types that do not exist."""
    with opened(path) as fd:
        is_gguf = pread_exactly(fd, 0, len(MAGIC)) == MAGIC
    if is_gguf:
        raw = read_header(path).get(KEY)
        if not isinstance(raw, str):
            raise CorruptFile(
                f"{os.fspath(path)} has no recipe: it is not a tailored file; pass one, or a recipe in JSON"
            )
    else:
        data = read_file(path, _MAX_FILE)
        refuse_wide(os.fspath(path), data)
        raw = data.decode("utf-8-sig", "replace")
    try:
        return _parsed(json.loads(raw))
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, _Fault) else "not JSON"
        raise CorruptFile(
            f"{os.fspath(path)} is not a recipe ({reason}); pass the JSON file or the GGUF that mixcli tailor wrote"
        ) from None


def is_recipe(beginning: bytes) -> bool:
    """Return whether a file begins as `to_json` writes it."""
    return beginning.startswith(f'{{"format":{_FORMAT},"file_type":'.encode())


class _Fault(ValueError):
    """What a recipe has that none can have."""


def _object(data: object, name: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _Fault(f"{name} is not a JSON object")
    return data


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str):
        raise _Fault(f"{shown(name)} is {'missing' if value is None else 'not a string'}")
    return value


def _type_of(name: str, kind: str) -> GGMLQuantizationType:
    try:
        return tensor_type(kind)
    except Unsupported as error:
        raise _Fault(f"{shown(name)}: {str(error).rstrip('.')}") from None


def _parsed(value: object) -> TailoredRecipe:
    data = _object(value, "it")
    if data.get("format") != _FORMAT:
        raise _Fault(f"its format is not {_FORMAT}")
    kinds = _object(data.get("types"), "types")
    types = {name: _type_of(name, _text(kinds, name)) for name in kinds}
    file_type = _text(data, "file_type")
    if not types or file_type not in FILE_TYPES:
        raise _Fault("no types" if not types else f"quant {file_type:.20}")
    imatrix = _object(data.get("imatrix"), "imatrix")
    return TailoredRecipe(
        types, file_type, _text(imatrix, "name"), _text(imatrix, "sha256"), _text(data, "made_for")
    )


__all__ = ["KEY", "TailoredRecipe", "is_recipe", "read_recipe"]
