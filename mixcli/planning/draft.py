"""Add a draft model to the plan of a load, where the two together are faster than the large model alone."""

from dataclasses import replace

from mixcli.errors import UsageError
from mixcli.host.protocol.host_spec import DraftLoad, LoadPlan
from mixcli.planning.load_options import LoadOptions
from mixcli.store.headers import header_of, shape_of
from mixcli.store.preflight import check_gguf
from mixcli.store.store import StoredModel, find
from mixcli.store.vocabulary import smaller_alike, vocabulary_hash
from profiles.acceptance import ACCEPTANCE
from profiles.drafting import plan_draft
from profiles.layout import layout_of
from profiles.ledger import expectation
from profiles.machine import Machine
from profiles.shape import ModelShape
from profiles.speed import estimate

MIN_GAIN = (
    1.1  # of the decode rate; a smaller gain may be a loss, because the acceptance differs from text to text
)


def with_draft(
    order: LoadPlan, stored: StoredModel, shape: ModelShape, machine: Machine, load_options: LoadOptions
) -> LoadPlan:
    """Return a plan with the draft model of the options beside the large one, or `order` with the reason why it stays off.

    Raises UsageError for a draft model that cannot guess for this one.
    """
    draft = find(load_options.draft)
    small = checked_draft(draft, stored, shape)
    alone = estimate(shape, machine, order.placement, layout_of(shape, order.placement, machine)).decode
    both = plan_draft(small, shape, machine, load_options.request, order.placement.n_ctx)
    if both is None:
        why = f"--draft {draft.label} is off: both models together do not fit in memory"
        return replace(order, reasons=(*order.reasons, why))
    rates = f"about {both.decode:.1f} tok/s with it if {100 * ACCEPTANCE:.0f} % of its tokens are accepted, {alone:.1f} without"
    if both.decode < MIN_GAIN * alone:
        return replace(
            order,
            reasons=(*order.reasons, f"--draft {draft.label} is off, because no gain is expected: {rates}"),
        )
    return LoadPlan(
        replace(both.large.placement, workers=order.placement.workers),
        expectation(both.large.ledger),
        smaller=order,
        reasons=(*both.large.reasons, f"--draft {draft.label}: {rates}"),
        draft=DraftLoad(draft.path, replace(both.small.placement, workers=order.placement.workers)),
    )


def checked_draft(draft: StoredModel, stored: StoredModel, shape: ModelShape) -> ModelShape:
    """Return the shape of a draft model; UsageError where it is not smaller, or its vocabulary is another."""
    small = shape_of(check_gguf(draft.path))
    header = header_of(stored.parts)
    if vocabulary_hash(header_of(draft.parts)) != vocabulary_hash(header) or vocabulary_hash(header) is None:
        fitting = ", ".join(smaller_alike(stored, header))
        hint = f"use {fitting}" if fitting else "remove --draft"
        raise UsageError(f"--draft {draft.label} has a different vocabulary from {stored.label}; {hint}")
    if small.params_total >= shape.params_total:
        raise UsageError(
            f"--draft {draft.label} is not smaller than {stored.label}: {small.params_total:,} and {shape.params_total:,} parameters; use a smaller model"
        )
    return small
