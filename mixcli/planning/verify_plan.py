"""plan --verify: load the model as planned in a child process, and compare the actual buffers."""

from collections.abc import Sequence

from mixcli.errors import ModelDied, NotReachable, UsageError
from mixcli.planning.report import Subject
from mixcli.system import python_child
from mixcli.system.console import console
from mixcli.system.measurements import MIB, Expected, ProbeAnswer, ProbeOrder
from profiles.ledger import expectation
from profiles.placement import Placement
from profiles.planner import Plan

TIME_LIMIT = 3600.0  # seconds; a large model from a slow disk takes some minutes


def show_verified(subject: Subject, plan: Plan) -> None:
    """Print predicted against actual bytes for each buffer; UsageError for a model that is not here."""
    if subject.path is None:
        raise UsageError(
            f"{subject.label} is not installed, so it cannot be loaded; run `mixcli pull {subject.label}`"
        )
    found = measured(subject, plan.placement, expectation(plan.ledger))
    rows = [
        (
            one.device,
            part,
            f"{planned / MIB:,.1f}",
            f"{real / MIB:,.1f}",
            f"{(real - planned) / MIB:+,.1f}",
        )
        for one in found.comparisons
        for part, planned, real in one.parts
    ]
    console.line()
    console.table(("device", "buffer", "planned MiB", "actual MiB", "off"), rows)
    for note in found.notes:
        console.note(note)


def measured(
    subject: Subject,
    placement: Placement,
    expected: Expected,
    *,
    prompt: int = 0,
    tokens: int = 0,
    batches: Sequence[int] = (),
    logits: Sequence[int] = (),
) -> ProbeAnswer:
    """Load a model in a child process and return what it took; the keywords are what else ProbeOrder measures.

    Raises ModelDied with its last words when that fails, NotReachable when a worker does not answer.
    """
    assert subject.path is not None, "only what is on this machine can be loaded"
    order = ProbeOrder(subject.path, placement, expected, prompt, tokens, tuple(batches), tuple(logits))
    done = python_child.run("-m", "mixcli.llama.probe", seconds=TIME_LIMIT, stdin=order.to_json())
    if done.code == NotReachable.exit_code:
        raise NotReachable(done.last_words)
    if not done.succeeded:
        raise ModelDied(f"loading {subject.label} as planned failed: {done.last_words}")
    return ProbeAnswer.from_json(done.out)
