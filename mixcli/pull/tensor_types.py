"""The types that llama.cpp gives the tensors of a model that is not here, remembered: to load llama.cpp takes longer than a plan."""

from collections.abc import Sequence
from hashlib import sha256

from mixcli.system import json_cache
from quantize.bindings import VERSION
from quantize.ggml_types import GGMLQuantizationType
from quantize.recipe import choose_types_of_each, stand_in
from quantize.source import ModelSource

CACHE = "tensor-types"  # by what llama.cpp's dry run would read: {file type: a byte for each tensor, in hexadecimal digits}
MAX_MODELS = 64  # that are remembered

Types = tuple[GGMLQuantizationType, ...]


def types_of_each(model: ModelSource, file_types: Sequence[str]) -> dict[str, Types]:
    """Return the types of a model's tensors, in their order, in each of several file types. Raises what choose_types() raises."""
    read = stand_in(model)
    key = sha256(b"%s %d %s" % (VERSION.encode(), read.n_data, read.header)).hexdigest()
    known = _known(json_cache.load(CACHE).get(key), len(model.tensors))
    missing = [name for name in file_types if name not in known]
    if missing:
        chosen = choose_types_of_each(model, missing)
        known |= {
            name: tuple(types[tensor.name] for tensor in model.tensors) for name, types in chosen.items()
        }
        _remember(key, known)
    return {name: known[name] for name in file_types}


def _known(found: object, n_tensors: int) -> dict[str, Types]:
    """Read an entry of the cache; what does not list a type for each tensor counts as absent."""
    known = {}
    for name, text in found.items() if isinstance(found, dict) else ():
        try:
            types = tuple(map(GGMLQuantizationType, bytes.fromhex(text)))
        except (TypeError, ValueError):
            continue
        if len(types) == n_tensors:
            known[name] = types
    return known


def _remember(key: str, known: dict[str, Types]) -> None:
    """Write an entry into the cache, and drop the oldest of too many."""

    def change(remembered: dict[str, object]) -> None:
        before = remembered.pop(key, None)
        others = before if isinstance(before, dict) else {}
        remembered[key] = others | {name: bytes(types).hex() for name, types in known.items()}
        for old in list(remembered)[:-MAX_MODELS]:
            del remembered[old]

    json_cache.update(CACHE, change)
