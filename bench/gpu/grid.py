"""What is measured: budgets, contexts and cache types, and in each cell the ways to place a model: our plan, and what others would do.

Budgets are emulated: a plan is made for a card of 24, 16, 12 or 8 GiB, whatever the card has.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from bench import fit
from mixcli.planning.report import Subject
from profiles.errors import DoesNotFit
from profiles.layout import Layout
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.placement import Placement
from profiles.planner import plan
from profiles.request import PlanRequest

# what a CUDA context takes beside the buffers (0.7 GiB on an H200); a budget of 24 GiB is that less
CONTEXT_BYTES = 704 << 20
OURS, WHOLE_LAYERS, ASIDE, FIT = "our plan", "whole layers", "all experts on the host", "llama.cpp's fit"
SMALL_BATCHES = "micro-batches of 512"  # llama.cpp's default, which larger ones are held against
TOGETHER = "our plan, many sequences"


@dataclass(frozen=True)
class Grid:
    """Budgets in GiB, contexts, cache types; tokens read and written in each cell; where the sweeps are made, and of what."""

    budgets: tuple[float, ...] = (24, 16, 12, 8)
    contexts: tuple[int, ...] = (4096, 8192, 32768)
    caches: tuple[str, ...] = ("f16", "q8_0")
    n_prompt: int = 4096
    n_tokens: int = 64
    sweep_context: int = 8192
    ubatches: tuple[int, ...] = (512, 1024, 2048, 4096)
    batches: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    load_modes: tuple[str, ...] = ("mmap", "none")
    without_offload: bool = True
    threads: tuple[float, ...] = (0.5, 0.75)  # shares of the cores
    file_types: tuple[str, ...] = ("Q4_K_M", "Q3_K_M")


# a worker that shares our cores takes seconds a token
DRY = Grid(
    (2.7, 1.1), (1024,), ("f16",), 32, 2, 1024, (256, 512), (1, 2), threads=(0.5,), file_types=("Q4_K_M",)
)
# what matters most, in four minutes
SHORT = Grid(
    contexts=(8192,),
    caches=("f16",),
    n_prompt=2048,
    n_tokens=48,
    ubatches=(512,),
    batches=(1, 4, 16),
    load_modes=(),
    without_offload=False,
    file_types=("Q4_K_M",),
)


def asked(options: argparse.Namespace) -> Grid:
    """Return the grid that the command line asks for."""
    return DRY if options.stand_in else SHORT if options.short else Grid()


@dataclass(frozen=True)
class Cell:
    """One thing to measure; `place` finds the placement when its turn comes, None where that way fits nothing into the budget."""

    subject: Subject
    file_type: str
    machine: Machine
    budget_gib: float
    n_ctx: int
    kv: str
    what: str
    place: Callable[["Cell"], Placement | None]
    batches: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, float, int, str, str]:
        return self.file_type, self.budget_gib, self.n_ctx, self.kv, self.what

    def base(self) -> Placement:
        """Return what all ways have in common, with llama.cpp's own sizes of batches."""
        cores = self.machine.n_cores
        return Placement(self.n_ctx, type_k=self.kv, type_v=self.kv, n_threads=cores, n_threads_batch=cores)


def cells(subject: Subject, file_type: str, machine: Machine, grid: Grid, program: Path) -> Iterator[Cell]:
    """Return all that is measured of one model: every way in every cell, then the sweeps at the largest and the smallest budget."""
    ways = ((OURS, our_plan), (WHOLE_LAYERS, whole_layers), (ASIDE, experts_aside), (FIT, fitted(program)))
    for budget, n_ctx, kv in product(grid.budgets, grid.contexts, grid.caches):
        for what, place in ways:
            yield Cell(subject, file_type, with_budget(machine, budget), budget, n_ctx, kv, what, place)
    for (what, place), budget in product(
        sweeps(machine, grid), dict.fromkeys((grid.budgets[0], grid.budgets[-1]))
    ):
        at = with_budget(machine, budget), budget, grid.sweep_context, grid.caches[0]
        yield Cell(subject, file_type, *at, what, place, grid.batches if what == TOGETHER else ())


def sweeps(machine: Machine, grid: Grid) -> Iterator[tuple[str, Callable[[Cell], Placement | None]]]:
    """Return our plan with one thing changed at a time."""
    for n in grid.ubatches:
        yield f"micro-batches of {n}", micro_batches(n)
    for share in grid.threads:
        n_threads = max(1, round(share * machine.n_cores))
        yield f"{n_threads} threads", but(n_threads=n_threads)
    for mode in grid.load_modes:
        yield f"load mode {mode}", but(load_mode=mode)
    if grid.without_offload:
        yield "without op_offload", but(op_offload=False)
    yield TOGETHER, our_plan


def with_budget(machine: Machine, gib: float) -> Machine:
    """Return the machine with its first GPU as large as a card of so many GiB, and no other."""
    gpu = replace(machine.gpus[0], bytes_free=max(0, int(gib * GIB) - CONTEXT_BYTES))
    return replace(machine, gpus=(gpu,))


def our_plan(cell: Cell, n_ubatch: int | None = None) -> Placement | None:
    """Plan as `mixcli run` does."""
    try:
        request = PlanRequest(n_ctx=cell.n_ctx, kv=cell.kv, n_ubatch=n_ubatch)
        return plan(cell.subject.shape, cell.machine, request).placement
    except DoesNotFit:
        return None


def micro_batches(n: int) -> Callable[[Cell], Placement | None]:
    return lambda cell: our_plan(cell, n)


def but(**other: str | bool | int) -> Callable[[Cell], Placement | None]:
    def place(cell: Cell) -> Placement | None:
        placement = our_plan(cell)
        return placement and replace(placement, **other)

    return place


def whole_layers(cell: Cell) -> Placement | None:
    """Return plain offload: as many whole layers, from the last, as the budget holds."""
    n, host = cell.subject.shape.n_layer, 1
    for first in range(n + 1):
        homes = (host,) * first + (0,) * (n - first)
        placed = _fitting(cell, Layout(host, homes, tuple((home,) * 3 for home in homes), 0))
        if placed is not None:
            return placed
    return None


def experts_aside(cell: Cell) -> Placement | None:
    """Return the layout with all experts on the host and all else on the GPU."""
    n, host = cell.subject.shape.n_layer, 1
    return _fitting(cell, Layout(host, (0,) * n, ((host,) * 3,) * n, 0))


def _fitting(cell: Cell, layout: Layout) -> Placement | None:
    shape = cell.subject.shape
    overrides = layout.overrides(cell.machine, shape)
    placement = replace(cell.base(), n_gpu_layers=layout.n_gpu_layers, tensor_overrides=overrides)
    ledger = accounts(shape, cell.machine, placement, layout)
    return placement if all(account.left >= 0 for account in ledger) else None


def fitted(program: Path) -> Callable[[Cell], Placement | None]:
    """Ask llama.cpp's own fit, compiled by bench/fit.py, for the same budget."""

    def place(cell: Cell) -> Placement | None:
        assert cell.subject.path is not None
        budgets = [gpu.bytes_free >> 20 for gpu in cell.machine.gpus]
        return fit.ask(program, cell.subject.path, cell.base(), budgets, cell.machine.workers)

    return place
