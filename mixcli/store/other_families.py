"""Models of other families than Mistral's: what their headers must keep to, whatever llama.cpp makes of the rest."""

import re
from math import isfinite

from mixcli.errors import IntegrityError
from mixcli.system.text import shown as shown_text
from quantize.ggml_types import GGUFValueType as Kind
from quantize.source import Value
from quantize.sources.gguf_header import GgufHeader
from quantize.sources.lazy_array import LazyArray
from quantize.wording import shown

MAX_INTEGER = (1 << 31) - 1  # llama.cpp keeps most numbers in 32 bits, and multiplies them
MAX_ITEMS = 1024  # of an array of hyperparameters: one for each layer, at most 512
MAX_TEXT = 1000  # characters
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
# what no file may be without, or have more of, and still be computed: (key, least, greatest, is required)
_BOUNDS = (
    ("block_count", 1, 512, True),  # LLAMA_MAX_LAYERS
    ("context_length", 64, MAX_INTEGER, True),
    ("embedding_length", 1, 1 << 20, True),
    ("feed_forward_length", 0, 1 << 24, False),
    ("expert_feed_forward_length", 0, 1 << 24, False),
    ("attention.head_count", 0, 1 << 16, False),
    ("attention.head_count_kv", 0, 1 << 16, False),
    ("attention.key_length", 1, 1 << 16, False),
    ("attention.value_length", 1, 1 << 16, False),
    ("rope.dimension_count", 0, 1 << 16, False),
    ("expert_count", 0, 1024, False),  # LLAMA_MAX_EXPERTS
    ("expert_used_count", 0, 1024, False),
)


def untested(architecture: str) -> str:
    """Return the note on such a model, one sentence."""
    return (
        f"mixcli is tested with the Mistral family only; a {shown_text(architecture, 40)} model runs as llama.cpp computes it, "
        "and its memory is what llama.cpp reports"
    )


def check_other_family(header: GgufHeader, name: str) -> None:
    """Raise IntegrityError with one sentence for numbers that no model has; the rest of the header is for llama.cpp to judge (header_trial.py)."""
    architecture = header.architecture
    if not _ARCHITECTURE.fullmatch(architecture):
        raise IntegrityError(
            f"{name} is damaged: general.architecture is {shown(architecture, 60)}; use another file of this model"
        )
    if architecture == "clip":
        raise IntegrityError(
            f"{name} is a 'clip' model, which sees images for a language model (mmproj) and writes no text; use the language model's own file"
        )
    kind = header.get("general.type", "model")
    if kind != "model":
        raise IntegrityError(
            f"{name} is not a model: its general.type is {shown(kind, 40)}; use the model's own file"
        )
    if not header.tensors:
        raise IntegrityError(
            f"{name} has no tensors; it is a vocabulary or damaged; use another file of this model"
        )
    for key, value in header.metadata.items():
        if key.startswith(f"{architecture}.") and not _is_sane(value):
            raise IntegrityError(
                f"{name} is not a valid model: {key:.80} is {shown(value.value, 60)}; no model has such a value; "
                "use another file of this model"
            )
    for key, least, greatest, is_required in _BOUNDS:
        _check_bounds(header, name, f"{architecture}.{key}", (least, greatest), is_required=is_required)
    n_predict, n_layer = (
        header.get(f"{architecture}.{key}", 0) for key in ("nextn_predict_layers", "block_count")
    )
    if (
        isinstance(n_predict, int) and n_predict >= n_layer
    ):  # llama.cpp leaves them out, and computes without a layer
        raise IntegrityError(
            f"{name} is not a valid model: {architecture}.nextn_predict_layers is {n_predict}, of {n_layer} layers in all; "
            "use another file of this model"
        )


def _is_sane(value: Value) -> bool:
    if isinstance(value.value, LazyArray):
        return len(value.value) <= MAX_ITEMS and all(_is_sane_item(item) for item in value.value)
    return value.type != Kind.ARRAY and _is_sane_item(value.value)


def _is_sane_item(item: object) -> bool:
    if isinstance(item, str):
        return len(item) <= MAX_TEXT
    if isinstance(item, float):
        return isfinite(item)
    return isinstance(item, int) and abs(item) <= MAX_INTEGER


def _check_bounds(
    header: GgufHeader, name: str, key: str, bounds: tuple[int, int], *, is_required: bool
) -> None:
    """Check a whole number, or one for each layer."""
    value = header.get(key)
    if value is None and not is_required:
        return
    items = list(value) if isinstance(value, LazyArray) else [value]
    least, greatest = bounds
    if not items or not all(type(item) is int and least <= item <= greatest for item in items):
        found = "missing" if value is None else shown(value, 60)
        raise IntegrityError(
            f"{name} is not a valid model: {key} is {found}; it must be a whole number from {least:,} to {greatest:,}"
        )
