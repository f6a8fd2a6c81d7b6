"""Parse --if: other hardware as people write it, such as ram=96GiB@5600 or gpu=+3090, and apply it to a machine.

Several changes of one --if are separated by commas.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from mixcli.errors import UsageError
from mixcli.planning.machines import own_profiles
from mixcli.system.formatting import size_in_bytes
from mixcli.system.text import clean
from mixcli.system.worker_address import worker_address
from profiles.errors import BadProfile, UnknownProfile
from profiles.machine import Gpu, Machine
from profiles.memory import GIB
from profiles.network import LAN
from profiles.profile import BUFFER_NAMES, GpuProfile
from profiles.profile_files import load_profile, profile_names
from profiles.upgrades import (
    LANE_GBS,
    MEMORY_SHARE,
    WORKER_GBS,
    WORKER_TFLOPS,
    link_gbs,
    memory_gbs,
    network_gbs,
    with_bandwidth,
    with_cards,
    with_cores,
    with_link,
    with_memory,
    with_worker,
)

RESERVE_WORKER = 256 << 20  # bytes that a worker does not lend
SIZE = r"\d[\d.]*\s*[KMGT]i?B?"
NUMBER = r"\d+(?:\.\d+)?"

# an example of every change, in the order in which they are applied
EXAMPLES = {
    "cores": "cores=16",
    "channels": "channels=4",
    "ram": "ram=96GiB@5600, ram=+32GiB or ram=@6400",
    "bandwidth": "bandwidth=90",
    "gpu": "gpu=+3090, gpu=4090, gpu=none or gpu=24GiB@936",
    "worker": "worker=HOST:PORT, worker=24GiB@10GbE or worker=3090@10GbE",
    "pcie": "pcie=4x16",
}
LIMITS = {"cores": (1, 1024), "channels": (1, 32), "GB/s": (1, 20_000), "MT/s": (400, 40_000)}
WHOLE = ("cores", "channels")
LANES = ("1", "2", "4", "8", "16", "32")


@dataclass(frozen=True)
class Upgrade:
    """One --if: its text, what it sets by key, and the address of a worker that is really there."""

    text: str
    parts: dict[str, str]

    @property
    def worker(self) -> str | None:
        """Return HOST:PORT of a worker that is to be asked; None where there is none, or only a hypothetical one."""
        value = self.parts.get("worker", "")
        return worker_address(value) if value and "@" not in value else None

    def apply(self, machine: Machine) -> tuple[Machine, tuple[str, ...]]:
        """Return the changed machine, and what was assumed for it, in words; UsageError for what this machine cannot have."""
        assumed: list[str] = []
        for key in EXAMPLES:
            if key in self.parts and not (key == "worker" and self.worker):
                machine, words = APPLY[key](machine, self.parts[key])
                assumed += [f"{key}={self.parts[key]} is {words}"] if words else []
        return machine, tuple(assumed)


def read_upgrade(text: str) -> Upgrade:
    """Parse one --if; UsageError with an example for one that is invalid."""
    parts: dict[str, str] = {}
    for part in clean(text).split(","):
        key, equals, value = (word.strip() for word in part.partition("="))
        key = key.lower()
        if key not in EXAMPLES or not equals or not value:
            raise UsageError(
                f"invalid --if {part.strip()!r:.60}; use {'; '.join(EXAMPLES.values())}; a comma combines several"
            )
        if key in parts:
            raise UsageError(f"--if {text!r:.60} sets {key} twice; repeat --if to compare both")
        parts[key] = value
    if "bandwidth" in parts and ("channels" in parts or "@" in parts.get("ram", "")):
        raise UsageError(
            f"--if {text!r:.60} sets the bandwidth of the memory twice; remove bandwidth={parts['bandwidth']}"
        )
    if "channels" in parts and "@" not in parts.get("ram", ""):
        raise UsageError(f"--if {text!r:.60} has channels without a memory speed; add one, such as ram=@5600")
    upgrade = Upgrade(clean(text).strip(), parts)
    _ = upgrade.worker  # raises UsageError for an invalid address
    return upgrade


def _fault(key: str, value: str, why: str = "") -> UsageError:
    return UsageError(f"invalid --if {f'{key}={value}'!r:.60}{why}; use {EXAMPLES[key]}")


def _number(key: str, value: str, text: str | None = None, unit: str | None = None) -> float:
    """Read a number within its limits; `text` is the number where it is a part of the value, and `unit` what is limited."""
    least, most = LIMITS[unit or key]
    text = value if text is None else text
    number = float(text) if re.fullmatch(NUMBER, text) else -1.0
    is_whole = key in WHOLE
    if not least <= number <= most or (is_whole and number != int(number)):
        kind = "whole number" if is_whole else "number"
        raise _fault(key, value, f": {unit or 'it'} must be a {kind} from {least} to {most:,}")
    return number


def _cores(machine: Machine, value: str) -> tuple[Machine, str]:
    return with_cores(machine, int(_number("cores", value))), ""


def _channels(machine: Machine, value: str) -> tuple[Machine, str]:
    return replace(machine, channels=int(_number("channels", value))), ""


def _ram(machine: Machine, value: str) -> tuple[Machine, str]:
    found = re.fullmatch(rf"(\+?)({SIZE})?(?:@({NUMBER}))?", value, re.IGNORECASE)
    if not found or not (found[2] or found[3]) or (found[1] and not found[2]):
        raise _fault("ram", value)
    words = ""
    if found[2]:
        n_bytes = size_in_bytes(found[2])
        before = machine.bytes_free + machine.bytes_reserved
        machine = with_memory(machine, before + n_bytes if found[1] else n_bytes)
        words = f"{machine.bytes_free / GIB:.1f} GiB free beside {machine.bytes_reserved / GIB:.1f} GiB that the system and other programs use"
    if found[3]:
        gbs = memory_gbs(_number("ram", value, found[3], "MT/s"), machine.channels)
        machine = with_bandwidth(machine, gbs)
        words += f"{' at ' if words else ''}{gbs:.0f} GB/s, {100 * MEMORY_SHARE:.0f} % of the peak of {machine.channels} channels of 64 bits"
    return machine, words


def _bandwidth(machine: Machine, value: str) -> tuple[Machine, str]:
    number = re.sub(r"\s*GB/s$", "", value, flags=re.IGNORECASE)
    return with_bandwidth(machine, _number("bandwidth", value, number, "GB/s")), ""


def _gpu(machine: Machine, value: str) -> tuple[Machine, str]:
    beside, name = value.startswith("+"), value.removeprefix("+").strip()
    if machine.unified:
        raise _fault("gpu", value, ": a computer with unified memory cannot take another GPU")
    if name.lower() == "none" and not beside:
        return with_cards(machine, (), beside=False), ""
    if found := re.fullmatch(rf"({SIZE})@({NUMBER})", name, re.IGNORECASE):
        free = max(0, size_in_bytes(found[1]) - int(GpuProfile("", 0).reserve_gib * GIB))
        kind = machine.gpus[-1].kind if machine.gpus and machine.gpus[-1].kind != "rpc" else "cuda"
        card = Gpu(
            f"{BUFFER_NAMES[kind]}0", free, kind, name, bandwidth=_number("gpu", value, found[2], "GB/s")
        )
        return with_cards(machine, (card,), beside=beside), _card(card)
    cards = _cards("gpu", value, name)
    words = _card(cards[0]) + (f", {len(cards)} of them" if len(cards) > 1 else "")
    return with_cards(machine, cards, beside=beside), words


def _card(card: Gpu) -> str:
    return (
        f"{card.description} with {card.bytes_free / GIB:.1f} GiB free, {card.bandwidth:.0f} GB/s, "
        f"{card.tflops:.0f} TFLOP/s and a link of {card.link:.0f} GB/s"
    )


def _cards(key: str, value: str, name: str) -> tuple[Gpu, ...]:
    """Return the cards of the profile that has that name, or that people call so."""
    try:
        machine = load_profile(name, own_profiles()).machine()
    except UnknownProfile:
        machine = None
    if machine is None or machine.unified or not machine.gpus:
        raise _fault(key, value, f": GPUs are {', '.join(_card_names())}")
    return machine.gpus


def _card_names() -> Iterator[str]:
    """Yield the names of profiles that have cards; an invalid file of a person's own has none."""
    for name in profile_names(own_profiles()):
        with suppress(BadProfile):
            profile = load_profile(name, own_profiles())
            if profile.gpus and not profile.unified:
                yield name


def _worker(machine: Machine, value: str) -> tuple[Machine, str]:
    found = re.fullmatch(rf"(.+)@({NUMBER})\s*G(?:bE|bit(?:/s)?|igabit)", value, re.IGNORECASE)
    if not found:
        raise _fault("worker", value)
    what, gbs = found[1].strip(), network_gbs(float(found[2]))
    if not 0 < gbs < LIMITS["GB/s"][1]:
        raise _fault("worker", value, ": the rate of the network must be above 0 Gbit/s")
    if re.fullmatch(SIZE, what, re.IGNORECASE):
        free = max(0, size_in_bytes(what) - RESERVE_WORKER)
        device = Gpu("", free, "rpc", "worker", bandwidth=WORKER_GBS, tflops=WORKER_TFLOPS)
        words = f"a CPU with {WORKER_GBS:.0f} GB/s of memory bandwidth"
    else:
        device, *more = _cards("worker", value, what)
        if more:
            raise _fault("worker", value, ": a worker has one GPU")
        words = f"{device.description} with {device.bandwidth:.0f} GB/s"
    return with_worker(
        machine, device, gbs
    ), f"{words}, over {gbs:.2g} GB/s with a round trip of {1000 * LAN:.1f} ms"


def _pcie(machine: Machine, value: str) -> tuple[Machine, str]:
    found = re.fullmatch(rf"([3-6])(?:\.0)?x({'|'.join(LANES)})", value, re.IGNORECASE)
    if not found:
        generations = f"{min(LANE_GBS)} to {max(LANE_GBS)}"
        raise _fault(
            "pcie", value, f": write the generation, {generations}, and the lanes, {', '.join(LANES)}"
        )
    if machine.unified or all(gpu.kind == "rpc" for gpu in machine.gpus):
        raise UsageError(
            f"invalid --if 'pcie={value}': the machine has no GPU; add one: --if gpu=3090,pcie={value}"
        )
    gbs = link_gbs(int(found[1]), int(found[2]))
    return with_link(machine, gbs), f"{gbs:.3g} GB/s for each GPU"


APPLY: dict[str, Callable[[Machine, str], tuple[Machine, str]]] = {
    "cores": _cores,
    "channels": _channels,
    "ram": _ram,
    "bandwidth": _bandwidth,
    "gpu": _gpu,
    "worker": _worker,
    "pcie": _pcie,
}

__all__ = ["EXAMPLES", "Upgrade", "read_upgrade"]
