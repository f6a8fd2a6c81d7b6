"""Forecast how long reading texts would take, from the plan of a model that need not be installed."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixcli.insight.job import request_of
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import machine_of, target_of
from mixcli.planning.report import subject_of
from profiles.planner import plan

CHARACTERS = 4  # of a token, about; only the model's own tokenizer knows


@dataclass(frozen=True)
class ReadingForecast:
    """About how many tokens a model reads, at how many a second, in how many seconds."""

    model: str
    n_tokens: int
    prefill: float
    seconds: float


def n_tokens_of(pieces: Sequence[TextPiece], n_ctx: int, n_chunks: int | None) -> int:
    """Return about how many tokens of texts are read in whole chunks, `n_chunks` at most."""
    n_characters = sum(len(piece.text) + sum(len(said) for _, said in piece.turns) for piece in pieces)
    found = max(1, n_characters // CHARACTERS // n_ctx)
    return n_ctx * (found if n_chunks is None else min(found, n_chunks))


def forecast(model: str | None, load_options: LoadOptions, n_ctx: int, n_tokens: int) -> ReadingForecast:
    """Return what reading `n_tokens` takes on the machine of a load; UsageError for an unknown model, DoesNotFit for one that is too large.

    Loading and the sums of an importance matrix are not in it.
    """
    subject = subject_of(model, None, target_of(load_options))
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    machine = machine_of(*where, shapes=[subject.shape])
    found = plan(subject.shape, machine, request_of(load_options, n_ctx, subject.shape.n_ctx_train))
    rate = found.estimate.middle(found.estimate.prefill)
    return ReadingForecast(subject.label, n_tokens, rate, n_tokens / rate)
