"""Which models have the same vocabulary, so that a small one can draft for a large one."""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from mixcli.errors import IntegrityError
from mixcli.store.catalog import CatalogEntry, catalog
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import StoredModel, models
from quantize.sources.gguf_header import GgufHeader
from quantize.vocab.vocabulary import TokenType

MAX_SHOWN = 3
_TEXT = frozenset({TokenType.NORMAL, TokenType.BYTE})


def vocabulary_hash(header: GgufHeader) -> str | None:
    """Return a checksum of the tokens of text and their ids; None for a file without a vocabulary.

    Control tokens and markers do not count: formats of one vocabulary differ in them.
    """
    tokens, types = header.get("tokenizer.ggml.tokens"), header.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, Sequence) or not isinstance(types, Sequence) or len(tokens) != len(types):
        return None
    text = (
        f"{i} {token}" for i, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind in _TEXT
    )
    return sha256("\0".join(text).encode("utf-8", "surrogateescape")).hexdigest()


def smaller_in_catalog(of: CatalogEntry) -> tuple[str, ...]:
    """Return the smaller models of the catalog that have the vocabulary of one and the same purpose: one of each size, the smallest first."""
    sizes: dict[float, str] = {}
    for other in catalog().values():
        is_alike = (other.vocabulary, other.kind) == (of.vocabulary, of.kind)
        if of.vocabulary and is_alike and other.parameters < of.parameters:
            sizes.setdefault(other.parameters, other.name)
    return tuple(sizes[size] for size in sorted(sizes)[:MAX_SHOWN])


def smaller_alike(model: StoredModel, header: GgufHeader) -> tuple[str, ...]:
    """Return the smaller models that have the vocabulary of this one: those on this machine, by their headers, then those of the catalog."""
    about = model.manifest
    known = catalog().get(about.name) if about else None
    here = list(_smaller_here(model, header, models()))
    names = {label.rpartition(":")[0] for label in here}
    return (*here, *(name for name in (smaller_in_catalog(known) if known else ()) if name not in names))


def _smaller_here(model: StoredModel, header: GgufHeader, others: Iterable[StoredModel]) -> Iterable[str]:
    size, wanted = shape_of(header).params_total, vocabulary_hash(header)
    for other in others:
        if wanted is None or other.path == model.path:
            continue
        try:
            theirs = header_of(other.parts)
            if shape_of(theirs).params_total < size and vocabulary_hash(theirs) == wanted:
                yield other.label
        except IntegrityError:  # `mixcli list` reports it
            continue
