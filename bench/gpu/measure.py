"""One grid of measurements: plans, and what others would do at the same budget, loaded for real and timed.

Budgets are emulated: a plan is made for a card of 24, 16, 12 or 8 GiB, whatever the card has. Every cell runs in a process of its own, so
one that dies is a row with its last words.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from mixcli.errors import ModelDied
from mixcli.insight.plans import Subject
from mixcli.insight.verify import measured
from profiles.errors import DoesNotFit
from profiles.expectation import expectation
from profiles.layout import Layout
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import Request

CONTEXT_BYTES = (
    512 << 20
)  # what a CUDA context takes beside the buffers, and the desktop; a budget of 24 GiB is that less


@dataclass(frozen=True)
class Grid:
    """What is measured: budgets in GiB, contexts, cache types; tokens read and written in each cell."""

    budgets: tuple[float, ...] = (24, 16, 12, 8)
    contexts: tuple[int, ...] = (4096, 8192, 32768)
    caches: tuple[str, ...] = ("f16", "q8_0")
    ubatches: tuple[int, ...] = (512, 1024, 2048, 4096)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    n_prompt: int = 2048
    n_tokens: int = 64


DRY = Grid(
    (0.9, 2.5), (1024,), ("f16",), (256, 512), (1, 2), 32, 2
)  # a worker that shares our cores takes seconds a token


@dataclass(frozen=True)
class Row:
    """One cell: what was placed and how, bytes by device as planned and as they were, what the driver said, tokens a second."""

    file_type: str
    budget_gib: float
    n_ctx: int
    kv: str
    what: str
    n_ubatch: int
    prefill: float = 0.0
    decode: float = 0.0
    planned: dict[str, int] | None = None
    actual: dict[str, int] | None = None
    off: float = 0.0
    driver_bytes: int | None = None
    batch_decode: dict[str, float] | None = None
    died: str = ""


def rows(subject: Subject, file_type: str, machine: Machine, grid: Grid) -> Iterator[Row]:
    """Measure every cell of the grid: our plan, whole layers, all experts on the host; then the sweeps at the first budget."""
    for budget, n_ctx, kv in product(grid.budgets, grid.contexts, grid.caches):
        budgeted = with_budget(machine, budget)
        for what, placement in ways(subject, budgeted, n_ctx, kv):
            yield measure(subject, budgeted, placement, grid, (file_type, budget, n_ctx, kv, what))
    budget, n_ctx, kv = grid.budgets[0], grid.contexts[0], grid.caches[0]
    budgeted = with_budget(machine, budget)
    for what, placement in sweeps(subject, budgeted, n_ctx, kv, grid):
        batches = list(grid.batches) if what == "our plan, many sequences" else []
        yield measure(subject, budgeted, placement, grid, (file_type, budget, n_ctx, kv, what), batches)


def with_budget(machine: Machine, gib: float) -> Machine:
    """Give the machine with its first GPU as large as a card of so many GiB, and no other."""
    gpu = replace(machine.gpus[0], bytes_free=max(0, int(gib * GIB) - CONTEXT_BYTES))
    return replace(machine, gpus=(gpu,))


def ways(subject: Subject, machine: Machine, n_ctx: int, kv: str) -> Iterator[tuple[str, Placement]]:
    """Give our plan, plain whole-layer offload, and all experts on the host, each within the budget; what does not fit is left out."""
    try:
        yield "our plan", plan(subject.shape, machine, Request(n_ctx=n_ctx, kv=kv)).placement
    except DoesNotFit:
        return
    base = Placement(
        n_ctx=n_ctx, type_k=kv, type_v=kv, n_threads=machine.n_cores, n_threads_batch=machine.n_cores
    )
    n, host = subject.shape.n_layer, 1
    for first in range(n + 1):
        homes = (host,) * first + (0,) * (n - first)
        layers = Layout(host, homes, tuple((home,) * 3 for home in homes), 0)
        if (placed := _fitting(subject, machine, base, layers)) is not None:
            yield "whole layers", placed
            break
    aside = Layout(host, (0,) * n, ((host,) * 3,) * n, 0)
    if (placed := _fitting(subject, machine, base, aside)) is not None:
        yield "all experts on the host", placed


def _fitting(subject: Subject, machine: Machine, base: Placement, layout: Layout) -> Placement | None:
    placement = replace(
        base,
        n_gpu_layers=layout.n_gpu_layers,
        tensor_overrides=layout.overrides(machine, dense=not subject.shape.n_expert),
    )
    ledger = accounts(subject.shape, machine, placement, layout)
    return placement if all(account.left >= 0 for account in ledger) else None


def sweeps(
    subject: Subject, machine: Machine, n_ctx: int, kv: str, grid: Grid
) -> Iterator[tuple[str, Placement]]:
    """Give our plan with each size of a micro-batch, each way to load, without op_offload, and for many sequences at once."""
    for n_ubatch in grid.ubatches:
        try:
            one = plan(subject.shape, machine, Request(n_ctx=n_ctx, kv=kv, n_ubatch=n_ubatch)).placement
        except DoesNotFit:
            continue
        yield f"micro-batches of {n_ubatch}", one
    base = plan(subject.shape, machine, Request(n_ctx=n_ctx, kv=kv)).placement
    yield "load mode mmap", replace(base, load_mode="mmap")
    yield "load mode none", replace(base, load_mode="none")
    yield "without op_offload", replace(base, op_offload=False)
    yield "our plan, many sequences", base


def measure(
    subject: Subject,
    machine: Machine,
    placement: Placement,
    grid: Grid,
    cell: tuple[str, float, int, str, str],
    batches: list[int] | None = None,
) -> Row:
    """Load one placement, compare every buffer with the ledger, and time it."""
    from profiles.layout import layout_of

    layout = layout_of(subject.shape, placement, machine)
    expected = expectation(accounts(subject.shape, machine, placement, layout))
    row = Row(*cell, n_ubatch=placement.n_ubatch)
    prompt = min(grid.n_prompt, placement.n_ctx // 2)
    with DriverMemory() as driver:
        try:
            answer = measured(
                subject,
                replace(placement, workers=machine.workers),
                expected,
                prompt=prompt,
                tokens=grid.n_tokens,
                batches=batches or [],
            )
        except ModelDied as error:
            return replace(row, died=str(error))
    return replace(
        row,
        prefill=round(answer["prefill"], 2),
        decode=round(answer["decode"], 2),
        planned={one["device"]: sum(part[1] for part in one["parts"]) for one in answer["comparisons"]},
        actual={one["device"]: sum(part[2] for part in one["parts"]) for one in answer["comparisons"]},
        off=round(max(one["off"] for one in answer["comparisons"]), 4),
        driver_bytes=driver.peak,
        batch_decode=answer.get("batches"),
    )


class DriverMemory:
    """The most memory that the driver saw in use on the first card while a block ran, less what was before; None without a driver."""

    def __enter__(self) -> "DriverMemory":
        self.peak: int | None = None
        self._ended = threading.Event()
        self._before = self._used()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        if self._before is not None:
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._before is not None:
            self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            used = self._used()
            if used is not None and self._before is not None:
                self.peak = max(self.peak or 0, used - self._before)

    @staticmethod
    def _used() -> int | None:
        try:
            import pynvml

            pynvml.nvmlInit()
            return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)
        except Exception:  # not installed, or no driver
            return None


def as_data(card: dict[str, Any], found: list[Row]) -> dict[str, Any]:
    """Give a result as plain data."""
    return {"measured": time.strftime("%Y-%m-%d"), "card": card, "rows": [asdict(row) for row in found]}
