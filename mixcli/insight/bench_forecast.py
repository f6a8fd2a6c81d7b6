"""Forecast a run of tests, from the plan of a model that need not be installed: about how fast, and how long it takes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixcli.insight.bench_record import BenchTest
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import machine_of, target_of
from mixcli.planning.report import subject_of
from profiles.layout import Layout, layout_of
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import plan
from profiles.roofline import decode_roof, prefill_roof
from profiles.shape import ModelShape
from profiles.speed import decode_rates, prefill_rates


@dataclass(frozen=True)
class BenchForecast:
    """One test: about how many tok/s, the bound of the devices by the rates of the profile (None where it is not known), and its seconds."""

    model: str
    test: BenchTest
    rate: float
    roof: float | None
    seconds: float


def forecast(
    model: str | None, load_options: LoadOptions, tests: Sequence[BenchTest], n_repeats: int
) -> list[BenchForecast]:
    """Return what each test takes on the machine of a load; UsageError for an unknown model, DoesNotFit for one that is too large.

    Loading is not in it.
    """
    subject = subject_of(model, None, target_of(load_options))
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    shape, machine = subject.shape, machine_of(*where, shapes=[subject.shape])
    found = plan(shape, machine, load_options.request)
    n_cells = max(one.n_cells for one in tests)
    if load_options.request.n_ctx is None and n_cells > found.placement.n_ctx:
        n_ctx = min(n_cells, shape.n_ctx_train or n_cells)
        found = plan(shape, machine, replace(load_options.request, n_ctx=n_ctx))
    layout = layout_of(shape, found.placement, machine)
    share = found.estimate.middle(1.0)
    rows = []
    for test in tests:
        rate, reading = (
            share / seconds for seconds in _seconds_of_token(test, shape, machine, found.placement, layout)
        )
        roof = _roof(test, shape, machine, found.placement, layout)
        rate = min(rate, roof or rate)  # an estimate takes micro-batches as full, which a short prompt is not
        seconds = n_repeats * test.n_batch * test.n_tokens / rate + test.n_batch * test.depth / reading
        rows.append(BenchForecast(subject.label, test, rate, roof, seconds))
    return rows


def _seconds_of_token(
    test: BenchTest, shape: ModelShape, machine: Machine, placement: Placement, layout: Layout
) -> tuple[float, float]:
    """Return the seconds of a token of a test, and of one that it has in the cache before."""
    prefill = prefill_rates(shape, machine, placement, max(test.depth, test.n_tokens)).seconds(shape, layout)
    if test.kind == "prefill":
        return prefill, prefill
    depth = test.depth + test.n_tokens // 2
    return decode_rates(shape, machine, placement, test.n_batch, depth).seconds(shape, layout), prefill


def _roof(
    test: BenchTest, shape: ModelShape, machine: Machine, placement: Placement, layout: Layout
) -> float | None:
    rates = [*(gpu.bandwidth for gpu in machine.gpus), machine.bandwidth]
    if test.kind == "prefill":
        return prefill_roof(shape, machine, placement, layout, rates, test.n_tokens, test.depth)
    return decode_roof(shape, placement, layout, rates, test.depth + test.n_tokens // 2, test.n_batch)
