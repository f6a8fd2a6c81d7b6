"""A machine as the planner sees it: plain numbers, measured or from a profile."""

from dataclasses import dataclass, field

from profiles.rates import HostRates

CORE_TFLOPS = (
    0.05  # one core with AVX2 in llama.cpp's K-quant products, measured; AVX-512 does two to three times that
)


@dataclass(frozen=True)
class Gpu:
    """A device beside the host. `name` is llama.cpp's own ("CUDA0"); `kind` is cuda, metal, vulkan, rocm or rpc.

    `bytes_free` is what we may fill, reserves taken off. Rates are GB/s of its memory and of the way to it, and TFLOP/s in 16 bits.
    To a worker (rpc) that way is the network, with a `round_trip` in seconds.
    """

    name: str
    bytes_free: int
    kind: str = "cuda"
    description: str = ""
    bandwidth: float = 400.0
    link: float = 12.0
    tflops: float = 40.0
    round_trip: float = 0.0

    @property
    def computes_host_weights(self) -> bool:
        """Return whether llama.cpp sends it large batches with weights that are in host memory (op_offload)."""
        return self.kind in ("cuda", "rocm", "vulkan")


@dataclass(frozen=True)
class MemoryBudget:
    """What decided how much memory a plan may take, in place of what is free here: a profile, or the options in `limits` ("--ram").

    `way` is a way to more of it, as a refusal has it.
    """

    way: str
    limits: str = ""


@dataclass(frozen=True)
class Machine:
    """Main memory that is free to us (bytes), physical cores, rates in GB/s, and the GPUs in llama.cpp's order.

    `rates` says how fast the processor multiplies, by type of weights; `bandwidth` and `tflops` are for types that it does not have.
    `unified` says that the GPU's memory is host memory. `kv_types` and `ubatches` are what the planner may choose from, best first;
    `n_ctx` is the default context length. `workers` are HOST:PORT of machines whose GPUs are among these. `bytes_reserved` of host memory are
    the system's and other programs', `channels` are those of the memory, and `typical` is the kind of processor whose rates stand in.
    `memory_setting` says how to give the machine more memory where that is a setting of a system around it, with {} for all of it in GB.
    `budget` is None where the memory is what is free on this machine.
    """

    bytes_free: int
    n_cores: int
    gpus: tuple[Gpu, ...] = ()
    bandwidth: float = 40.0
    tflops: float = 0.0
    disk: float = 1.0
    unified: bool = False
    n_ctx: int = 8192
    kv_types: tuple[str, ...] = ("f16",)
    ubatches: tuple[int, ...] = (512, 1024, 2048)
    workers: tuple[str, ...] = ()
    rates: HostRates = field(default_factory=HostRates)
    bytes_reserved: int = 0
    channels: int = 2
    typical: str = ""
    memory_setting: str = ""
    budget: MemoryBudget | None = None

    def more_memory(self, missing: int) -> str:
        """Return how to give this machine so many bytes more of host memory than are free; nothing where a person cannot."""
        total = self.bytes_reserved + self.bytes_free + missing
        return (
            self.memory_setting.format(-(-total // (1 << 30))) if self.memory_setting and missing > 0 else ""
        )

    @property
    def host_tflops(self) -> float:
        """Return the TFLOP/s of all cores."""
        return self.tflops or CORE_TFLOPS * max(1, self.n_cores)


__all__ = ["CORE_TFLOPS", "Gpu", "Machine", "MemoryBudget"]
