"""What a machine would be with other memory, links or cards, and what its speed is bound by.

Every change is of the numbers that the planner reads. The bandwidth of memory modules is a share of what their data sheet promises, as are
that of a link and of a network.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from profiles.layout import Layout
from profiles.machine import Gpu, Machine
from profiles.network import LAN
from profiles.placement import Placement
from profiles.rates import BITS_OF_TYPE, GB, TERA, HostRates, ProductRates
from profiles.shape import ModelShape
from profiles.speed import DECODE_EFFICIENCY, Estimate, estimate
from profiles.typical import typical_rates

CHANNEL_BYTES = 8  # a memory channel has 64 bits
MEMORY_SHARE = 0.85  # of the modules' peak that reading reaches, as in the profiles of desktops with DDR5
# GB/s of a PCIe lane after its encoding (PCI-SIG, base specifications 3.0 to 6.0), and the share that copies reach, as in the profiles
LANE_GBS = {3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
LINK_SHARE = 0.76
NETWORK_SHARE = 0.8  # of a network's bits
WORKER_GBS, WORKER_TFLOPS = (
    40.0,
    0.5,
)  # of a worker of which only the memory is known: a processor with two channels
NEAR_MEMORY = (
    0.75  # of what memory gives: a type that decodes as fast waits for memory, a slower one for the cores
)

# what may bind a speed, in words, with the machine that has twice of it
Change = Callable[[Machine], Machine]


def memory_gbs(transfers: float, channels: int) -> float:
    """Return the GB/s that modules of so many MT/s give, all channels together."""
    return MEMORY_SHARE * transfers * CHANNEL_BYTES * channels / 1000


def link_gbs(generation: int, lanes: int) -> float:
    """Return the GB/s of a PCIe link; KeyError for a generation that LANE_GBS has not."""
    return LINK_SHARE * LANE_GBS[generation] * lanes


def network_gbs(gigabits: float) -> float:
    """Return the GB/s of a network of so many Gbit/s."""
    return NETWORK_SHARE * gigabits / 8


def with_memory(machine: Machine, n_bytes: int) -> Machine:
    """Return a machine with so many bytes of host memory in all; of unified memory its GPU gets more or less in proportion."""
    free = max(0, n_bytes - machine.bytes_reserved)
    if not machine.unified:
        return replace(machine, bytes_free=free)
    ratio = free / max(1, machine.bytes_free)
    gpus = tuple(replace(gpu, bytes_free=int(gpu.bytes_free * ratio)) for gpu in machine.gpus)
    return replace(machine, bytes_free=free, gpus=gpus)


def with_bandwidth(machine: Machine, gbs: float) -> Machine:
    """Return a machine whose host memory gives so many GB/s; unified memory gives them to its GPU too.

    Typical rates are those of the cores, up to what memory gives. Of rates that were measured, those that were near what memory gave change
    in proportion, up to what the cores reach with a few tokens at once; the others waited for the cores.
    """
    most = gbs * DECODE_EFFICIENCY["host"]
    ratio, near = gbs / machine.bandwidth, NEAR_MEMORY * DECODE_EFFICIENCY["host"] * machine.bandwidth

    def other(rates: ProductRates, bits: float) -> ProductRates:
        by_cores = rates.experts[0] * TERA * bits / (2 * 8) / GB
        reached = min(rates.decode * ratio, by_cores) if rates.decode >= near else rates.decode
        return replace(rates, decode=min(most, max(reached, rates.decode) if ratio > 1 else reached))

    typical = (
        {}
        if not machine.typical
        else {one.type: one for one in typical_rates(machine.typical).scaled(machine.n_cores, most).types}
    )
    types = tuple(
        typical[one.type]
        if one.origin == "typical" and one.type in typical
        else replace(
            one,
            plain=other(one.plain, BITS_OF_TYPE[one.type]),
            repacked=one.repacked and other(one.repacked, BITS_OF_TYPE[one.type]),
        )
        for one in machine.rates.types
    )
    gpus = machine.gpus
    if machine.unified:
        gpus = tuple(replace(gpu, bandwidth=gpu.bandwidth * ratio) for gpu in gpus)
    return replace(machine, bandwidth=gbs, rates=HostRates(types, machine.rates.attention), gpus=gpus)


def with_cores(machine: Machine, n_cores: int) -> Machine:
    """Return a machine with so many cores of the same kind."""
    factor = n_cores / max(1, machine.n_cores)
    most = machine.bandwidth * DECODE_EFFICIENCY["host"]
    rates = machine.rates.scaled(factor, max(most, *(one.plain.decode for one in machine.rates.types), 0.0))
    changed = replace(machine, n_cores=n_cores, tflops=machine.tflops * factor, rates=rates)
    return with_bandwidth(changed, machine.bandwidth) if machine.typical else changed


def with_link(machine: Machine, gbs: float) -> Machine:
    """Return a machine whose cards have links of so many GB/s; workers keep their network."""
    return replace(
        machine,
        gpus=tuple(gpu if gpu.kind == "rpc" else replace(gpu, link=gbs) for gpu in machine.gpus),
    )


def with_cards(machine: Machine, cards: Sequence[Gpu], *, beside: bool) -> Machine:
    """Return a machine with other cards, or `beside` those that it has; workers stay first."""
    workers = [gpu for gpu in machine.gpus if gpu.kind == "rpc"]
    kept = [gpu for gpu in machine.gpus if gpu.kind != "rpc"] if beside else []
    names = {gpu.name for gpu in (*workers, *kept)}
    for card in cards:
        stem = card.name.rstrip("0123456789")
        name = next(name for n in range(len(names) + 1) if (name := f"{stem}{n}") not in names)
        names.add(name)
        kept.append(replace(card, name=name))
    return replace(machine, gpus=(*workers, *kept))


def with_worker(machine: Machine, device: Gpu, gbs: float) -> Machine:
    """Return a machine with one more worker: a device elsewhere, over a network of so many GB/s with the round trip of a switch."""
    workers = [gpu for gpu in machine.gpus if gpu.kind == "rpc"]
    cards = [gpu for gpu in machine.gpus if gpu.kind != "rpc"]
    worker = replace(device, name=f"RPC{len(workers)}", kind="rpc", link=gbs, round_trip=LAN)
    return replace(machine, gpus=(*workers, worker, *cards))


def _faster_gpus(**factors: float) -> Change:
    def change(machine: Machine) -> Machine:
        return _with_gpus(machine, lambda gpu: _scaled(gpu, factors))

    return change


def _faster_cards_link(machine: Machine) -> Machine:
    return _with_gpus(machine, lambda gpu: gpu if gpu.kind == "rpc" else _scaled(gpu, {"link": 2.0}))


def _faster_network(machine: Machine) -> Machine:
    faster = {"link": 2.0, "round_trip": 0.5}
    return _with_gpus(machine, lambda gpu: _scaled(gpu, faster) if gpu.kind == "rpc" else gpu)


def _with_gpus(machine: Machine, change: Callable[[Gpu], Gpu]) -> Machine:
    return replace(machine, gpus=tuple(map(change, machine.gpus)))


def _scaled(gpu: Gpu, factors: Mapping[str, float]) -> Gpu:
    return replace(gpu, **{name: getattr(gpu, name) * factor for name, factor in factors.items()})


TWICE: dict[str, Change] = {
    "the bandwidth of host memory": lambda machine: with_bandwidth(machine, 2 * machine.bandwidth),
    "the cores of the CPU": lambda machine: with_cores(machine, 2 * machine.n_cores),
    "the memory bandwidth of the GPUs": _faster_gpus(bandwidth=2.0),
    "the arithmetic of the GPUs": _faster_gpus(tflops=2.0),
    "the PCIe link": _faster_cards_link,
    "the network to the workers": _faster_network,
    "the disk": lambda machine: replace(machine, disk=2 * machine.disk),
}
LITTLE = 1.03  # smaller gains do not count


@dataclass(frozen=True)
class Bound:
    """What a rate is bound by most, and by how much it would grow with twice of that; None where nothing alone binds it."""

    by: str | None
    gain: float


@dataclass(frozen=True)
class Bounds:
    """What binds decode and prefill."""

    decode: Bound
    prefill: Bound


def bounds(shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, missing: int) -> Bounds:
    """Return what binds a placement: each resource is doubled in turn; `missing` bytes of the experts come from disk."""
    now = estimate(shape, machine, placement, layout, missing)
    faster = {
        what: estimate(shape, change(machine), placement, layout, missing) for what, change in TWICE.items()
    }

    def bound(rate: Callable[[Estimate], float]) -> Bound:
        what, best = max(((what, rate(one)) for what, one in faster.items()), key=lambda pair: pair[1])
        gain = best / rate(now)
        return Bound(what if gain > LITTLE else None, gain)

    return Bounds(bound(lambda one: one.decode), bound(lambda one: one.prefill))


__all__ = [
    "LANE_GBS",
    "LITTLE",
    "WORKER_GBS",
    "WORKER_TFLOPS",
    "Bound",
    "Bounds",
    "bounds",
    "link_gbs",
    "memory_gbs",
    "network_gbs",
    "with_bandwidth",
    "with_cards",
    "with_cores",
    "with_link",
    "with_memory",
    "with_worker",
]
