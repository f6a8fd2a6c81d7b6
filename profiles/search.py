"""The search of the planner: over micro-batch sizes and kinds of layouts, best first.

Every candidate is known by seconds that it cannot beat, and each look at it costs more and says more: a bound from the rooms alone, one
beside the compute buffers, the quickest layout of its kind, its exact ledger. So little is looked at, and the first candidate with nothing
left to look at is the fastest plan of all. More memory can only add candidates: it never makes a plan slower.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from itertools import product
from typing import TypeVar

from profiles.graph.nodes import QUANTIZED_KV
from profiles.layout import Layout, on_host
from profiles.machine import Machine
from profiles.memory import bytes_kv, bytes_kv_layer, bytes_logits, bytes_process, cells
from profiles.packing import KINDS, Budget, Kind, LayerSizes, at_least, pack
from profiles.placement import Placement
from profiles.request import PlanRequest, work_of
from profiles.reserve import Kept, reserve
from profiles.shape import ModelShape
from profiles.speed import Rates, decode_rates, work_rates

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
    """Settings and a kind of layout, ordered by the least seconds they can take and then by the order in which they were thought of.

    `tries` counts the reserves of compute buffers that were tried; 0 when only that of the smallest micro-batch was, -1 for none.
    """

    seconds: float
    place: int
    placement: Placement = field(compare=False)
    kind: Kind | None = field(compare=False)
    tries: int = field(default=-1, compare=False)
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
    goods = LayerSizes(shape.each_layer(), 0, shape.bytes_output)
    rooms = [Budget(*(gpu.bytes_free,) * 3) for gpu in machine.gpus]
    kinds = KINDS if machine.gpus else ()
    found = (at_least(goods, rooms, rates, kind, shape.bytes_weights, from_disk=True) for kind in kinds)
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
        self._reserves: dict[tuple[int, bool, Kind], tuple[tuple[Kept, ...], int]] = {}
        self._known_rates: dict[Placement, Rates] = {}
        kv = bytes_kv_layer(shape, cells(placement.n_ctx), placement.type_k, placement.type_v)
        self._goods = LayerSizes(shape.each_layer(), kv, shape.bytes_output)
        own_output = 0 if shape.tied else shape.bytes_output
        beside = shape.bytes_weights - self._goods.bytes_weights - own_output
        beside += bytes_process(shape, placement) + bytes_logits(shape, placement.n_sequences)
        self._spare = self._goods.n_bytes if machine.unified else machine.bytes_free - beside

    def candidates(self) -> Iterator[Candidate]:
        """Yield every kind once: in host memory; with all, some or no experts on GPUs; for each size of a micro-batch."""
        host = on_host(self._shape, len(self._machine.gpus))
        helps = any(gpu.computes_host_weights for gpu in self._machine.gpus)
        rooms = [Budget(*(gpu.bytes_free,) * 3) for gpu in self._machine.gpus]
        for place, sized in enumerate(self._sizes()):
            alone = replace(sized, op_offload=False)
            yield Candidate(self._rates(alone).seconds(self._shape, host), place, alone, None, layout=host)
            # the quicker way to load; a plan that has no room for it is found slower in the end
            pinned = replace(sized, load_mode="none")
            for kind in KINDS if self._machine.gpus else ():
                for offload in (True, False) if helps and kind.mode != "all" else (True,):
                    one = Candidate(0.0, place, replace(pinned, op_offload=offload), kind)
                    yield from self._bounded(one, rooms, self._spare)

    def look(self, one: Candidate) -> Candidate | None:
        """Look closer: at the bound beside compute buffers, then at the quickest layout; with a larger reserve when that did not hold."""
        kind = one.kind
        assert kind is not None
        if one.tries < 0:  # what has no room with the smallest buffers has none with larger ones
            return self._beside_smallest(replace(one, tries=0))
        if one.layout is not None or not one.tries:
            if one.tries == len(SLACK):
                return None
            one = replace(one, tries=one.tries + 1, layout=None)
            if one.tries > 1 and self._beside_smallest(one) is None:
                return None
            return next(self._bounded(one, *self._rooms(one)), None)
        rooms, spare = self._rooms(one)
        rates = self._rates(one.placement)
        layout = pack(self._goods, rooms, rates, kind, spare, from_disk=self._request.from_disk)
        if layout is None:
            return None
        return replace(one, seconds=rates.seconds(self._shape, layout), layout=layout)

    def _beside_smallest(self, one: Candidate) -> Candidate | None:
        """Bound a candidate as if its buffers were those of the smallest micro-batch, which are worked out once for all sizes."""
        smallest = replace(one.placement, n_ubatch=self._least_ubatch())
        rooms = self._rooms(replace(one, placement=smallest, tries=max(1, one.tries)))
        return next(self._bounded(one, *rooms), None)

    def _bounded(self, one: Candidate, rooms: list[Budget], spare: int) -> Iterator[Candidate]:
        assert one.kind is not None
        from_disk, rates = self._request.from_disk, self._rates(one.placement)
        seconds = at_least(self._goods, rooms, rates, one.kind, spare, from_disk=from_disk)
        if seconds is not None:
            yield replace(one, seconds=seconds)

    def _rates(self, placement: Placement) -> Rates:
        found = self._known_rates.get(placement)
        if found is None:
            found = work_rates(self._shape, self._machine, placement, self._request.purpose)
            self._known_rates[placement] = found
        return found

    def _least_ubatch(self) -> int:
        return min(sized.n_ubatch for sized in self._sizes())

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

    def _rooms(self, one: Candidate) -> tuple[list[Budget], int]:
        """Return the bytes for weights and caches on every GPU, and for layers in host memory, beside the compute buffers."""
        assert one.kind is not None
        key = one.placement.n_ubatch, one.placement.op_offload, one.kind
        if key not in self._reserves:
            self._reserves[key] = reserve(self._shape, self._machine, one.placement, one.kind)
        gpus, host = self._reserves[key]
        more = 1 + SLACK[one.tries - 1]
        rooms = [
            Budget(*(gpu.bytes_free - int(kept * more) for kept in (here.empty, here.run, here.with_output)))
            for gpu, here in zip(self._machine.gpus, gpus, strict=True)
        ]
        return rooms, self._spare - (0 if self._machine.unified else int(host * more))
