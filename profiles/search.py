"""The search of the planner: over micro-batch sizes and kinds of layouts, best first.

Every candidate is known by seconds that it cannot beat, and each look at it costs more and says more: a bound from the rooms alone, one
beside the compute buffers that any layout of its mode needs, a closer one beside its own, the quickest layout of its kind, its exact ledger.
So little is looked at, and the first candidate with nothing left to look at is the fastest plan of all. More memory can only add
candidates: it never makes a plan slower.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import product
from typing import TypeVar

from profiles.buffers import Buffers
from profiles.graph.nodes import QUANTIZED_KV
from profiles.layout import Layout, on_host
from profiles.machine import Machine
from profiles.memory import bytes_kv, bytes_kv_layer, bytes_logits, bytes_process, cells
from profiles.packing import KINDS, Budget, Kind, pack
from profiles.packing_bound import at_least
from profiles.placement import Placement
from profiles.prices import LayerSizes, Prices
from profiles.request import PlanRequest, work_of
from profiles.reserve import Reserve, reserve
from profiles.shape import ModelShape
from profiles.speed import decode_rates, work_rates

SMALL_UBATCHES = (256, 128)  # beside those of the machine
SLACK = (
    0.0,
    1 / 32,
    1 / 8,
    1 / 2,
)  # more is kept, step by step, when a layout needs more than the typical ones

P = TypeVar("P")


@dataclass(frozen=True, order=True)
class Candidate:
    """Settings and a kind of layout, ordered by the least seconds they can take and then by place: the usual settings, and kinds with more ways to split, first.

    `looks` counts the reserves of compute buffers beside which it was bounded, `slack` the times that its layout needed more than was reserved.
    """

    seconds: float
    place: tuple[int, int]
    placement: Placement = field(compare=False)
    kind: Kind | None = field(compare=False)
    looks: int = field(default=0, compare=False)
    slack: int = field(default=0, compare=False)
    layout: Layout | None = field(default=None, compare=False)


def quickest(
    shape: ModelShape,
    machine: Machine,
    request: PlanRequest,
    placement: Placement,
    finish: Callable[[Placement, Layout], tuple[float, P] | None],
) -> P | None:
    """Return what `finish` makes of the quickest layout that fits: it gives (seconds, plan), or None when the ledger does not hold."""
    if not _may_fit(shape, machine, request, placement):
        return None
    search = _Search(shape, machine, request, placement)
    queue = list(search.candidates())
    heapify(queue)
    best: tuple[float, P] | None = None
    while queue and (best is None or queue[0].seconds < best[0]):
        one = heappop(queue)
        if one.layout is None:
            closer = search.look(one)
        elif (found := finish(one.placement, one.layout)) is not None:
            best = found if best is None else min(best, found, key=lambda pair: pair[0])
            continue
        else:
            closer = search.look(one) if one.kind is not None else None
        if closer is not None:
            heappush(queue, closer)
    return None if best is None else best[1]


def least_decode_seconds(shape: ModelShape, machine: Machine, placement: Placement) -> float:
    """Return seconds a token that no plan with that context and cache can beat, from the sizes alone and in milliseconds."""
    rates = decode_rates(shape, machine, placement, depth=0)
    prices = Prices(LayerSizes(shape.each_layer(), 0, shape.bytes_output), rates)
    rooms = [Budget(*(gpu.bytes_free,) * 3) for gpu in machine.gpus]
    kinds = KINDS if machine.gpus else ()
    found = (at_least(prices, rooms, kind, shape.bytes_weights, from_disk=True) for kind in kinds)
    on_no_gpu = rates.seconds(shape, on_host(shape, len(machine.gpus)))
    return min(on_no_gpu, *(seconds for seconds in found if seconds is not None), on_no_gpu)


def _may_fit(shape: ModelShape, machine: Machine, request: PlanRequest, placement: Placement) -> bool:
    """Return whether weights and cache alone are within all the memory that there is: a quick no."""
    need = shape.bytes_weights - (shape.bytes_experts if request.from_disk else 0)
    need += bytes_kv(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
    gpus = 0 if machine.unified else sum(gpu.bytes_free for gpu in machine.gpus)
    return need <= machine.bytes_free + gpus


class _Search:
    """One model, machine and request, with context and cache type settled."""

    def __init__(
        self, shape: ModelShape, machine: Machine, request: PlanRequest, placement: Placement
    ) -> None:
        self._shape, self._machine, self._request, self._placement = shape, machine, request, placement
        self._buffers = Buffers(shape, machine, is_typical=True)
        self._reserves: dict[tuple[int, bool, Kind], Reserve] = {}
        self._known_prices: dict[Placement, Prices] = {}
        kv = bytes_kv_layer(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
        self._goods = LayerSizes(shape.each_layer(), kv, shape.bytes_output)
        own_output = 0 if shape.tied else shape.bytes_output
        beside = shape.bytes_weights - self._goods.bytes_weights - own_output
        beside += bytes_process(shape, placement) + bytes_logits(shape, placement.n_sequences)
        self._spare = self._goods.n_bytes if machine.unified else machine.bytes_free - beside

    def candidates(self) -> Iterator[Candidate]:
        """Yield every kind once: in host memory; with all, some or no experts on GPUs; for each size of a micro-batch."""
        host = on_host(self._shape, len(self._machine.gpus))
        kinds = [kind for kind in KINDS if kind.mode == "all" or not self._request.on_gpus]
        helps = any(gpu.computes_host_weights for gpu in self._machine.gpus)
        rooms = [Budget(*(gpu.bytes_free,) * 3) for gpu in self._machine.gpus]
        for place, sized in enumerate(self._sizes()):
            alone = replace(sized, op_offload=False)
            seconds = self._prices(alone).rates.seconds(self._shape, host)
            if not self._request.on_gpus:
                yield Candidate(seconds, (place, 0), alone, None, layout=host)
            # the quicker way to load; a plan that has no room for it is found slower in the end
            pinned = replace(sized, load_mode="none")
            ways = (pinned, replace(pinned, op_offload=False)) if helps else (pinned,)
            for number, kind in enumerate(kinds if self._machine.gpus else ()):
                for placement in ways if kind.mode != "all" else (pinned,):
                    one = Candidate(0.0, (place, -number), placement, kind)
                    yield from self._bounded(one, rooms, self._spare)

    def look(self, one: Candidate) -> Candidate | None:
        """Look closer: at the bound beside the next compute buffers, then at the quickest layout; beside larger ones when that did not hold."""
        kind = one.kind
        assert kind is not None
        if one.layout is not None:
            one = replace(one, looks=0, slack=one.slack + 1, layout=None)
            if one.slack == len(SLACK):
                return None
        views = tuple(
            dict.fromkeys((Kind(kind.mode), kind))
        )  # without split layers no layout needs larger buffers
        rooms, spare = self._rooms(one, views[min(one.looks, len(views) - 1)])
        if one.looks < len(views):
            one = replace(one, looks=one.looks + 1)
            return next(self._bounded(one, rooms, spare, uncut=one.looks == len(views)), None)
        prices = self._prices(one.placement)
        layout = pack(prices, rooms, kind, spare, from_disk=self._request.from_disk)
        if layout is None:
            return None
        return replace(one, seconds=prices.rates.seconds(self._shape, layout), layout=layout)

    def _bounded(
        self, one: Candidate, rooms: list[Budget], spare: int, *, uncut: bool = False
    ) -> Iterator[Candidate]:
        assert one.kind is not None
        prices, from_disk = self._prices(one.placement), self._request.from_disk
        seconds = at_least(prices, rooms, one.kind, spare, from_disk=from_disk, uncut=uncut)
        if seconds is not None:
            yield replace(one, seconds=seconds)

    def _prices(self, placement: Placement) -> Prices:
        found = self._known_prices.get(placement)
        if found is None:
            rates = work_rates(self._shape, self._machine, placement, self._request.purpose)
            found = self._known_prices[placement] = Prices(self._goods, rates)
        return found

    def _sizes(self) -> Iterator[Placement]:
        """Yield the placement with every size of a micro-batch and flash attention that may be taken, the usual ones first."""
        ubatches, asked = self._machine.ubatches, self._request.n_ubatch
        # on the CPU a larger one gains nothing
        sizes = (*(ubatches if self._machine.gpus else (min(ubatches),)), *SMALL_UBATCHES)
        fitting = [n for n in sizes if n <= max(cells(self._placement.n_ctx), min(sizes))]
        one_reader = work_of(self._request.purpose).at_once == 1
        # many texts in one cache are masked from each other, which only flash attention skips; quantized values need it
        plain = one_reader and not self._machine.gpus and self._placement.type_v not in QUANTIZED_KV
        # repacking is chosen by seconds; of equals the file as it is mapped, which costs no memory of its own
        layouts = (one_reader,) if self._machine.gpus else (False, True)
        for flash_attn, n_ubatch, repack in product(
            (False, True) if plain else (True,), (asked,) if asked else fitting, layouts
        ):
            yield replace(
                self._placement,
                n_ubatch=n_ubatch,
                n_batch=max(Placement.n_batch, n_ubatch),
                flash_attn=flash_attn,
                repack=repack,
            )

    def _rooms(self, one: Candidate, kind: Kind) -> tuple[list[Budget], int]:
        """Return the bytes for weights and caches on every GPU, and for layers in host memory, beside the compute buffers of a kind of layouts."""
        kept, more = self._reserve(one.placement, kind), 1 + SLACK[one.slack]
        rooms = [
            Budget(*(gpu.bytes_free - int(n * more) for n in (here.empty, here.run, here.with_output)))
            for gpu, here in zip(self._machine.gpus, kept.gpus, strict=True)
        ]
        return rooms, self._spare - (0 if self._machine.unified else int(kept.host * more))

    def _reserve(self, placement: Placement, kind: Kind) -> Reserve:
        key = placement.n_ubatch, placement.op_offload, kind
        found = self._reserves.get(key)
        if found is None:
            found = reserve(self._buffers, placement, kind)
            if kind.splits:
                found = found.and_for(self._reserve(placement, Kind(kind.mode)))
            self._reserves[key] = found
        return found
