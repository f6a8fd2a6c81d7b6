"""Refuse to compare models that split a text differently, before anything is loaded."""

from mixcli.errors import UsageError
from quantize.sources.gguf_header import GgufHeader
from quantize.sources.lazy_array import LazyArray

KEYS = ("tokenizer.ggml.model", "tokenizer.ggml.pre")  # how a text is cut, beside the tokens themselves


def check_alike(model: tuple[str, GgufHeader], baseline: tuple[str, GgufHeader]) -> None:
    """Raise UsageError where two models, each with its label and header, have different tokenizers."""
    (label, header), (other_label, other) = model, baseline
    own, theirs = _tokens(header), _tokens(other)
    if own.raw != theirs.raw or any(header.get(key) != other.get(key) for key in KEYS):
        raise not_alike((label, len(own)), (other_label, len(theirs)))


def not_alike(model: tuple[str, int], baseline: tuple[str, int]) -> UsageError:
    """Return the error on two models, each with its label and the size of its vocabulary, that do not read the same tokens."""
    return UsageError(
        f"{model[0]} ({model[1]:,} tokens) and the baseline {baseline[0]} ({baseline[1]:,} tokens) split the text "
        "differently; compare files of the same model"
    )


def _tokens(header: GgufHeader) -> LazyArray:
    found = header.get("tokenizer.ggml.tokens")
    if not isinstance(found, LazyArray):
        raise UsageError("one of the two models has no tokenizer; compare files of the same model")
    return found


__all__ = ["check_alike", "not_alike"]
