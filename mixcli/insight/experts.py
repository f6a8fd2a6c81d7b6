"""Observe which experts of a mixture a text activates."""

from dataclasses import dataclass

from mixcli.errors import UsageError
from mixcli.insight import job
from mixcli.insight.expert_use import ExpertReport
from mixcli.insight.orders import N_CTX, ExpertsOrder, TextReading
from mixcli.insight.pieces import TextPiece, check_length
from mixcli.planning.load_options import LoadOptions
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import StoredModel
from mixcli.system.console import Bar


@dataclass(frozen=True)
class RoutingRequest:
    """A text, one to compare it with (or nothing), and how they are read: in chunks of `n_ctx` tokens, `n_chunks` of each at most."""

    pieces: tuple[TextPiece, ...]
    against: tuple[TextPiece, ...] = ()
    n_ctx: int = N_CTX
    n_chunks: int | None = None


def observed(
    stored: StoredModel, request: RoutingRequest, load_options: LoadOptions, bar: Bar
) -> ExpertReport:
    """Return what the routers do with the texts.

    Raises UsageError for a dense model and for texts that are too short, and the errors of a load.
    """
    layers_with_experts(stored)
    for pieces in (request.pieces, request.against):
        check_length(pieces, request.n_ctx)
    plan = job.plan_reading(stored, load_options, request.n_ctx)
    reading = TextReading(stored.path.absolute(), plan, request.pieces, request.n_ctx, request.n_chunks)
    return ExpertReport.from_data(job.run(ExpertsOrder(reading, request.against), stored.label, bar))


def layers_with_experts(stored: StoredModel) -> range:
    """Return the layers that have experts, as the header has it; UsageError for a dense model."""
    shape = shape_of(header_of(stored.parts))
    if not shape.n_expert:
        raise UsageError(no_experts(stored.label))
    return range(shape.n_layer_dense, shape.n_layer)


def no_experts(label: str) -> str:
    """Return the message for a dense model."""
    return f"{label} is a dense model: it has no experts; choose a mixture such as mixtral"


def bytes_of_experts(stored: StoredModel) -> int:
    """Return the bytes of all experts of a model; shared experts, which every token uses, do not count."""
    return shape_of(header_of(stored.parts)).bytes_experts
