"""One cell measured: loaded for real, every buffer held against the ledger, timed. In a process of its own, so that one that dies is a row with
its last words.
"""

import threading
from dataclasses import dataclass, replace

from bench.gpu.grid import Cell, Grid
from mixcli.errors import ModelDied
from mixcli.planning.verify_plan import measured
from profiles.layout import Layout, layout_of
from profiles.ledger import accounts, expectation
from profiles.machine import Machine
from profiles.memory import bytes_kv_layer, cells
from profiles.placement import Placement
from profiles.shape import ModelShape
from profiles.speed import GB, DeviceRates, Rates

FITS_NOT = "fits nothing into the budget"


@dataclass(frozen=True)
class Row:
    """One cell: what was placed and how, bytes by device as planned and as they were, what the driver said, tokens a second.

    `roofline` is the decode that bandwidth alone would allow, `on_host` the share of the experts' bytes that the host holds.
    """

    file_type: str
    budget_gib: float
    n_ctx: int
    kv: str
    what: str
    n_ubatch: int = 0
    on_host: float = 0.0
    roofline: float = 0.0
    prefill: float = 0.0
    decode: float = 0.0
    planned: dict[str, int] | None = None
    actual: dict[str, int] | None = None
    off: float = 0.0
    driver_bytes: int | None = None
    batch_decode: dict[str, float] | None = None
    died: str = ""


def measure(cell: Cell, grid: Grid) -> Row:
    """Place a cell and measure it."""
    row, shape, machine = Row(*cell.key), cell.subject.shape, cell.machine
    placement = cell.place(cell)
    if placement is None:
        return replace(row, died=FITS_NOT)
    layout = layout_of(shape, placement, machine)
    ledger = accounts(shape, machine, placement, layout)
    prompt = min(grid.n_prompt, placement.n_ctx // 2)
    row = replace(
        row,
        n_ubatch=placement.n_ubatch,
        on_host=round(ledger[-1].experts / max(1, sum(account.experts for account in ledger)), 4),
        roofline=round(roofline(shape, machine, placement, layout, prompt + grid.n_tokens // 2), 2),
    )
    placement = replace(placement, workers=machine.workers)
    with DriverMemory() as driver:
        try:
            answer = measured(
                cell.subject,
                placement,
                expectation(ledger),
                prompt=prompt,
                tokens=grid.n_tokens,
                batches=cell.batches,
            )
        except ModelDied as error:
            return replace(row, died=str(error))
    return replace(
        row,
        prefill=round(answer.prefill, 2),
        decode=round(answer.decode, 2),
        planned={one.device: one.planned for one in answer.comparisons},
        actual={one.device: one.real for one in answer.comparisons},
        off=round(max(one.off for one in answer.comparisons), 4),
        driver_bytes=driver.peak,
        batch_decode={str(n): rate for n, rate in answer.batches.items()} or None,
    )


def roofline(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, n_filled: int
) -> float:
    """Return the tokens a second at which every device would read its share at full bandwidth, one behind the other, and nothing else took time."""
    used = shape.n_expert_used / shape.n_expert if shape.n_expert else 1.0
    kv = bytes_kv_layer(shape, cells(n_filled), placement.type_k, placement.type_v)
    each = [1 / (one.bandwidth * GB) for one in (*machine.gpus, machine)]
    rates = Rates(tuple(DeviceRates(kv * byte, byte, 0.0, byte * used, byte) for byte in each), 0.0, 0.0)
    return 1 / rates.seconds(shape, layout)


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
