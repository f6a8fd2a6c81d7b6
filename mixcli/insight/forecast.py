"""Forecast how long reading texts would take, from the plan of a model that need not be installed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mixcli.errors import UsageError
from mixcli.insight.experts import no_experts
from mixcli.insight.job import request_of
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import machine_of, target_of
from mixcli.planning.report import Subject, subject_of
from profiles.planner import plan
from profiles.shape import ModelShape

CHARACTERS = 4  # of a token, about; only the model's own tokenizer knows
# what one core of an EPYC with AVX2 does in a second, beside the model
SUMMED = 400e6  # inputs of matrices that are squared and summed
SCORED = 350e6  # logits that become probabilities and are compared with a baseline
KEPT = 40e6  # logits of which a baseline is kept
Work = Literal["importance", "scores", "baseline", "routing"]  # what is done with what the model computes


@dataclass(frozen=True)
class ReadingForecast:
    """About how many tokens a model reads, at how many a second, and how long it takes.

    `seconds` are those of the model and `seconds_host`, in which one core works on what the model computes; one after the other.
    """

    model: str
    n_tokens: int
    prefill: float
    seconds_host: float
    seconds: float


def n_tokens_of(pieces: Sequence[TextPiece], n_ctx: int, n_chunks: int | None) -> int:
    """Return about how many tokens of texts are read in whole chunks, `n_chunks` at most."""
    n_characters = sum(len(piece.text) + sum(len(said) for _, said in piece.turns) for piece in pieces)
    found = max(1, n_characters // CHARACTERS // n_ctx)
    return n_ctx * (found if n_chunks is None else min(found, n_chunks))


def subject_named(model: str | None, load_options: LoadOptions) -> Subject:
    """Return the model whose reading is forecast; UsageError for one that is not found."""
    return subject_of(model, None, target_of(load_options))


def forecast(
    subject: Subject, load_options: LoadOptions, n_ctx: int, n_tokens: int, work: Work
) -> ReadingForecast:
    """Return what reading `n_tokens` takes on the machine of a load; DoesNotFit for a model that is too large.

    Loading is not in it. The host's part is that of a usual core, whatever the machine.
    """
    if work == "routing" and not subject.shape.n_expert:
        raise UsageError(no_experts(subject.label))
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    machine = machine_of(*where, shapes=[subject.shape])
    found = plan(subject.shape, machine, request_of(load_options, n_ctx, subject.shape.n_ctx_train))
    rate = found.estimate.middle(found.estimate.prefill)
    host = n_tokens * _seconds_of_token(subject.shape, work)
    return ReadingForecast(subject.label, n_tokens, rate, host, n_tokens / rate + host)


def _seconds_of_token(shape: ModelShape, work: Work) -> float:
    if work == "routing":
        return 0.0
    if work == "importance":
        return shape.n_layer * _inputs(shape) / SUMMED
    seconds = shape.n_vocab / SCORED + (shape.n_vocab / KEPT if work == "baseline" else 0)
    return seconds / 2  # the second half of a chunk counts


def _inputs(shape: ModelShape) -> int:
    """Return about how many inputs the matrices of a layer have for one token; each expert that is used has its own."""
    used = max(shape.n_expert_used, 1)
    attention = 3 * shape.n_embd + shape.n_head * shape.head_dim_v
    return attention + used * (2 * shape.n_embd + (shape.n_ff_expert or shape.n_ff))
