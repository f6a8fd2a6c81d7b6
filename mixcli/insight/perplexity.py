"""Measure the perplexity of a model on texts, and how far it is from a baseline model."""

import os
from dataclasses import dataclass
from pathlib import Path

from mixcli.insight import job
from mixcli.insight.baseline_file import FORMAT
from mixcli.insight.orders import N_CTX, PerplexityOrder, TextReading
from mixcli.insight.pieces import TextPiece, check_length
from mixcli.insight.statistics import TextScores
from mixcli.insight.vocabularies import check_alike
from mixcli.planning.load_options import LoadOptions
from mixcli.store.headers import header_of
from mixcli.store.store import StoredModel
from mixcli.system import paths
from mixcli.system.console import Bar
from mixcli.system.locks import exclusive
from mixcli.system.trimming import trim

KEPT = 2 << 30  # bytes of baselines in the cache; the oldest are removed


@dataclass(frozen=True)
class PerplexityRequest:
    """The texts and how they are read: in chunks of `n_ctx` tokens, `n_chunks` at most (None for all)."""

    pieces: tuple[TextPiece, ...]
    n_ctx: int = N_CTX
    n_chunks: int | None = None


def measure(
    stored: StoredModel,
    baseline: StoredModel | None,
    request: PerplexityRequest,
    load_options: LoadOptions,
    bar: Bar,
) -> list[TextScores]:
    """Return the scores of every text, first of all together; the models are loaded one after the other.

    What the baseline computes is kept in the cache, so that further models are compared without loading it again. Raises UsageError for
    texts that are too short or vocabularies that differ, and the errors of a load.
    """
    check_length(request.pieces, request.n_ctx)
    if baseline is not None:
        check_alike(*((one.label, header_of(one.parts)) for one in (stored, baseline)))
    known = None if baseline is None else _distributions(baseline, request, load_options, bar)
    order = PerplexityOrder(_reading(stored, request, load_options), read_baseline=known)
    return [TextScores.from_data(row) for row in job.run(order, stored.label, bar)["rows"]]


def _distributions(
    baseline: StoredModel, request: PerplexityRequest, load_options: LoadOptions, bar: Bar
) -> Path:
    """Return the file of a baseline's distributions, computed now where the cache does not have it."""
    folder = paths.private(paths.cache_dir() / "baselines")
    path = folder / f"{_key(baseline, request, load_options)}.baseline"
    with exclusive(path.with_suffix(".lock"), seconds=1, what=f"computing the baseline {baseline.label}"):
        if path.exists():
            os.utime(path)
        else:
            reading = _reading(baseline, request, load_options)
            job.run(PerplexityOrder(reading, write_baseline=path), baseline.label, bar)
            trim(folder, "*.baseline", KEPT, path)
    return path


def _reading(stored: StoredModel, request: PerplexityRequest, load_options: LoadOptions) -> TextReading:
    plan = job.plan_reading(stored, load_options, request.n_ctx)
    return TextReading(stored.path.absolute(), plan, request.pieces, request.n_ctx, request.n_chunks)


def _key(stored: StoredModel, request: PerplexityRequest, load_options: LoadOptions) -> str:
    """Name a baseline by all that decides about it: the files, the texts, the type of the KV cache, and the library that computes."""
    pieces = [piece.to_data() for piece in request.pieces]
    return job.key_of(stored, load_options, FORMAT, pieces, request.n_ctx, request.n_chunks)[:32]
