"""Read a profile from TOML, with file and key in every error.

Units are in the keys: _gib is 2^30 bytes, _gbs is 10^9 bytes a second, tflops are of 16-bit products. [host.rates.TYPE] has what
profiles.rates reads: decode in GB/s, experts and dense in TFLOP/s at 16, 64 and 512 tokens.
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from profiles.errors import BadProfile, shown
from profiles.machine import Gpu, Machine
from profiles.memory import GIB, KV_TYPES
from profiles.rates import HostRates, read_rates
from profiles.speed import DECODE_EFFICIENCY
from profiles.typical import TYPICAL, typical_rates

GPU_KINDS = ("cuda", "rocm", "vulkan", "metal", "rpc")
BUFFER_NAMES = {"cuda": "CUDA", "rocm": "ROCm", "vulkan": "Vulkan", "metal": "Metal", "rpc": "RPC"}
MAX_GPUS = (
    15  # beside the CPU: ggml schedules over at most 16 backends (ggml-backend.cpp: GGML_SCHED_MAX_BACKENDS)
)
LIMITS = {  # of numbers that are divided by, so that no rate is infinite
    "cores": (1, 1024),
    "channels": (1, 32),
    "bandwidth_gbs": (0.01, 1 << 20),
    "disk_gbs": (0.001, 1 << 20),
    "link_gbs": (0.01, 1 << 20),
}
WHOLE = ("cores", "channels")
GPU_LIMITS = {"tflops": (0.01, 1 << 20)}  # of [host] 0 stands for what the cores have


@dataclass(frozen=True)
class GpuProfile:
    """A GPU: `match` is part of the name that drivers give it, `reserve_gib` what others need of its memory."""

    match: str
    vram_gib: float
    kind: str = "cuda"
    reserve_gib: float = 0.8
    bandwidth_gbs: float = 400.0
    link_gbs: float = 12.0
    tflops: float = 40.0


@dataclass(frozen=True)
class HostProfile:
    """Main memory and processor; `reserve_gib` is what the system and other programs need.

    `typical` names a kind of processor (TYPICAL) whose rates stand in for types that have none of this one's own, a core for a core.
    `channels` are those of the memory, 64 bits each.
    """

    ram_gib: float
    cores: int
    reserve_gib: float = 4.0
    bandwidth_gbs: float = 40.0
    disk_gbs: float = 1.0
    tflops: float = 0.0
    typical: str = ""
    channels: int = 2


@dataclass(frozen=True)
class Profile:
    """A whole machine and how its owner likes it used."""

    name: str
    description: str
    host: HostProfile
    gpus: tuple[GpuProfile, ...] = ()
    n_ctx: int = 8192
    kv_types: tuple[str, ...] = ("f16",)
    ubatches: tuple[int, ...] = (512, 1024, 2048)
    unified: bool = False
    rates: HostRates = field(default_factory=HostRates)

    def machine(self) -> Machine:
        """Return the planner's view: everything that is not reserved is free."""
        counts: dict[str, int] = {}
        gpus = []
        for gpu in self.gpus:
            number = counts.setdefault(gpu.kind, 0)
            counts[gpu.kind] += 1
            gpus.append(
                Gpu(
                    name=f"{BUFFER_NAMES[gpu.kind]}{number}",
                    bytes_free=_bytes(gpu.vram_gib - gpu.reserve_gib),
                    kind=gpu.kind,
                    description=gpu.match,
                    bandwidth=gpu.bandwidth_gbs,
                    link=gpu.link_gbs,
                    tflops=gpu.tflops,
                )
            )
        return Machine(
            bytes_free=_bytes(self.host.ram_gib - self.host.reserve_gib),
            n_cores=self.host.cores,
            gpus=tuple(gpus),
            bandwidth=self.host.bandwidth_gbs,
            tflops=self.host.tflops,
            disk=self.host.disk_gbs,
            unified=self.unified,
            n_ctx=self.n_ctx,
            kv_types=self.kv_types,
            ubatches=self.ubatches,
            rates=self.rates.over(self._typical()),
            bytes_reserved=_bytes(self.host.reserve_gib),
            channels=self.host.channels,
            typical=self.host.typical,
        )

    def _typical(self) -> HostRates:
        if not self.host.typical:
            return HostRates()
        most = self.host.bandwidth_gbs * DECODE_EFFICIENCY["host"]
        return typical_rates(self.host.typical).scaled(self.host.cores, most)


def read_profile(name: str, table: Mapping[str, Any], where: str) -> Profile:
    """Read a profile's table (without `extends`); BadProfile names `where` and the key."""
    known = {"description", "host", "gpu", "n_ctx", "kv_types", "ubatches", "unified"}
    if unknown := sorted(set(table) - known):
        raise BadProfile(
            f"{where}: {unknown[0]!r} is not a key of a profile; keys are {', '.join(sorted(known))}"
        )
    for key in ("description", "host"):
        if key not in table:
            raise BadProfile(f"{where}: {key!r} is missing")
    gpus = table.get("gpu", [])
    if not isinstance(gpus, list):
        raise BadProfile(f"{where}: 'gpu' must be tables written as [[gpu]]")
    if len(gpus) > MAX_GPUS:
        raise BadProfile(f"{where}: {len(gpus)} [[gpu]] tables; llama.cpp computes on at most {MAX_GPUS}")
    read = {
        "n_ctx": _whole(
            _number(table.get("n_ctx", 8192), f"{where}: 'n_ctx'", 64, 1 << 24), f"{where}: 'n_ctx'"
        ),
        "kv_types": _choices(table.get("kv_types", ["f16"]), f"{where}: 'kv_types'"),
        "ubatches": tuple(
            _whole(_number(n, f"{where}: 'ubatches'", 32, 1 << 16), f"{where}: 'ubatches'")
            for n in _listed(table.get("ubatches", [512, 1024, 2048]), f"{where}: 'ubatches'")
        ),
    }
    unified = table.get("unified", False)
    if not isinstance(unified, bool):
        raise BadProfile(f"{where}: 'unified' is {shown(unified)}; it must be true or false")
    if not isinstance(table["description"], str):
        raise BadProfile(f"{where}: 'description' must be text")
    host, rates = _host(table["host"], where)
    profile = Profile(
        name=name,
        description=table["description"],
        host=host,
        rates=rates,
        gpus=tuple(_read(GpuProfile, gpu, f"{where}: [[gpu]] {i + 1}") for i, gpu in enumerate(gpus)),
        n_ctx=int(read["n_ctx"]),  # type: ignore[call-overload]
        kv_types=read["kv_types"],  # type: ignore[arg-type]
        ubatches=read["ubatches"],  # type: ignore[arg-type]
        unified=unified,
    )
    for gpu in profile.gpus:
        if gpu.kind not in GPU_KINDS:
            raise BadProfile(
                f"{where}: [[gpu]] kind is {shown(gpu.kind)}; it must be one of {', '.join(GPU_KINDS)}"
            )
    return profile


def _host(table: Any, where: str) -> tuple[HostProfile, HostRates]:
    rates = table.get("rates", {}) if isinstance(table, dict) else {}
    if not isinstance(rates, dict):
        raise BadProfile(f"{where}: [host] 'rates' must be tables written as [host.rates.TYPE]")
    plain = (
        {key: value for key, value in table.items() if key != "rates"} if isinstance(table, dict) else table
    )
    host: HostProfile = _read(HostProfile, plain, f"{where}: [host]")
    if host.typical and host.typical not in TYPICAL:
        raise BadProfile(
            f"{where}: [host] 'typical' is {shown(host.typical)}; it must be one of {', '.join(TYPICAL)}"
        )
    try:
        found = read_rates(rates, "profile")
    except ValueError as error:
        raise BadProfile(f"{where}: [host.rates] {error}") from None
    for one in found.types:
        decode = max(layout.decode for layout in one.layouts)
        if decode > host.bandwidth_gbs:
            raise BadProfile(
                f"{where}: [host.rates] {one.type!r} decodes {decode:g} GB/s, more than the memory's 'bandwidth_gbs' "
                f"of {host.bandwidth_gbs:g}; correct one of them"
            )
    return host, found


def _read(kind: type[Any], table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise BadProfile(f"{where} must be a table")
    known = {one.name: one for one in fields(kind)}
    if unknown := sorted(set(table) - set(known)):
        raise BadProfile(f"{where} {unknown[0]!r} is not a key; keys are {', '.join(known)}")
    values: dict[str, Any] = {}
    for name, one in known.items():
        if name not in table:
            if one.default is MISSING:
                raise BadProfile(f"{where} {name!r} is missing")
            continue
        value = table[name]
        if one.type is str or one.type == "str":
            if not isinstance(value, str):
                raise BadProfile(f"{where} {name!r} is {shown(value)}; it must be text")
            values[name] = value
        else:
            limits = LIMITS.get(name) or (GPU_LIMITS.get(name) if kind is GpuProfile else None)
            values[name] = _number(value, f"{where} {name!r}", *(limits or (0, 1 << 20)))
            if name in WHOLE:
                values[name] = _whole(values[name], f"{where} {name!r}")
    return kind(**values)


def _number(value: Any, what: str, least: float, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise BadProfile(f"{what} is {shown(value)}; it must be a number from {least} to {most}")
    return value


def _whole(value: float, what: str) -> int:
    if value != int(value):
        raise BadProfile(f"{what} is {shown(value)}; it must be a whole number")
    return int(value)


def _listed(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise BadProfile(f"{what} must be a non-empty list")
    return value


def _choices(value: Any, what: str) -> tuple[str, ...]:
    for one in _listed(value, what):
        if not isinstance(one, str) or one not in KV_TYPES:
            raise BadProfile(f"{what} has {shown(one)}, which is not one of {', '.join(KV_TYPES)}")
    return tuple(value)


def _bytes(gib: float) -> int:
    return max(0, int(gib * GIB))


__all__ = ["GPU_KINDS", "GpuProfile", "HostProfile", "Profile", "read_profile"]
