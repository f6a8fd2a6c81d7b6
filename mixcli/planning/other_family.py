"""Plan models of other families: llama.cpp reports the buffers that the planner cannot compute.

The planner takes such a model for a Llama of its dimensions. What llama.cpp would allocate for the plan takes the place of what was computed, and the
next plan is measured too, until the plan is one that was measured: then its ledger is exact.
"""

from collections.abc import Sequence
from dataclasses import replace

from mixcli.planning.load_options import LoadOptions
from mixcli.planning.report import Subject
from mixcli.store.header_trial import try_header
from mixcli.store.headers import is_known
from mixcli.system.measurements import TrialBuffers
from profiles.buffers import Buffers, compute_key
from profiles.layout import layout_of
from profiles.machine import Machine
from profiles.memory import bytes_kv, bytes_logits, cells
from profiles.placement import Placement
from profiles.planner import MIN_CTX, Plan, plan_if_it_fits
from profiles.request import PlanRequest
from profiles.search import SMALL_UBATCHES
from profiles.shape import Measured, ModelShape
from quantize.sources.gguf_header import GgufHeader

MAX_TRIALS = 6  # plans that are measured; two usually suffice
LEAST = 1 << 20  # bytes of a computed buffer that says something about others


def with_measured_buffers(
    shape: ModelShape,
    header: GgufHeader,
    label: str,
    machine: Machine,
    request: PlanRequest,
    workers: Sequence[str] = (),
) -> ModelShape:
    """Return the shape with corrections that make the ledger of its plan what llama.cpp reports; as it is for a family whose memory is known.

    Raises what `try_header` raises.
    """
    if is_known(header):
        return shape
    found = replace(shape, measured=None)
    tried: set[Placement] = set()
    while len(tried) < MAX_TRIALS:
        placement = _placement(plan_if_it_fits(found, machine, request), machine, request)
        if placement in tried:
            break
        tried.add(placement)
        placed, gpus = replace(placement, workers=tuple(workers)), [gpu.name for gpu in machine.gpus]
        buffers = try_header(header, label, [placed], gpus, with_vocabulary=False)
        if not buffers:
            break
        found = replace(found, measured=_corrected(found, machine, placement, buffers[0]))
    return found


def with_measured_shape(subject: Subject, machine: Machine, load_options: LoadOptions) -> Subject:
    """Return the subject of a plan with the corrections of `with_measured_buffers`, where it has a header."""
    if subject.header is None or is_known(subject.header):
        return subject
    request, workers = load_options.request, load_options.workers
    shape = with_measured_buffers(subject.shape, subject.header, subject.label, machine, request, workers)
    return replace(subject, shape=shape, planned=None)


def _placement(found: Plan | None, machine: Machine, request: PlanRequest) -> Placement:
    """Return a plan's placement; that which needs least where there is no plan yet, to learn what is really needed."""
    if found is not None:
        return found.placement
    return Placement(
        n_ctx=request.n_ctx or max(MIN_CTX, request.least_ctx),
        n_ubatch=request.n_ubatch or min(SMALL_UBATCHES),
        n_seq_max=request.n_seq_max,
        n_threads=max(1, machine.n_cores),
        n_threads_batch=max(1, machine.n_cores),
    )


def _corrected(shape: ModelShape, machine: Machine, placement: Placement, real: TrialBuffers) -> Measured:
    """Return what is known of a shape's memory, with llama.cpp's numbers for one more placement."""
    n_devices = len(machine.gpus) + 1
    before = shape.measured or Measured(ratios=(1.0,) * n_devices)
    bare = replace(shape, measured=None)
    layout = layout_of(bare, placement, machine)
    buffers = Buffers(bare, machine)
    staged, plain = buffers.of(placement, layout), buffers.of(placement, layout, staging=False)
    whole = [*real.compute[:-1], real.compute[-1] - bytes_logits(bare, placement.n_sequences)]
    if real.has_stand_ins:  # which do not stage experts of the host, as the real ones will
        whole = [n + max(0, a - b) for n, a, b in zip(whole, staged, plain, strict=True)]
    unstaged = [round(n * b / a) if a > b else n for n, a, b in zip(whole, staged, plain, strict=True)]
    columns = zip(whole, staged, before.ratios, strict=True)
    kv = bytes_kv(bare, cells(placement.n_ctx), placement.type_k, placement.type_v)
    return Measured(
        real.kv / kv if kv else 1.0,
        tuple(n / a if a >= LEAST else ratio for n, a, ratio in columns),
        (
            *before.compute,
            (compute_key(placement, layout), tuple(whole)),
            (compute_key(placement, layout, staging=False), tuple(unstaged)),
        ),
    )
