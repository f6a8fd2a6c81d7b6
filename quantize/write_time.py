"""How long a write will take, roughly: weights a second and core by type, as they were measured."""

from importlib.util import find_spec

from quantize.kernels.dispatch import FASTER
from quantize.plan import WritePlan

# Weights a second and core of a whole conversion on a server core with AVX-512, reading and writing included: 1.45e9 weights of a layer of
# Mixtral 8x7B became Q4_K_M in 8.3 s on two cores. A laptop's core is slower by up to a half.
KERNEL = 85e6
GRID_KERNEL = 15e6  # of IQ2 and IQ3 types, whose kernels search a grid
COPIED = 400e6
LIBRARY = {"Q8_0": 150e6, "Q3_K": 50e6, "Q6_K": 25e6}  # ggml_quantize_chunk, where no kernel serves
OTHER, SEARCHED = (
    12e6,
    2e6,
)  # other types of the library, and those of 1 to 3 bits that it searches a grid for


def estimated_seconds(plan: WritePlan) -> float:
    """Return the seconds that carrying out a plan takes, within a factor of about two."""
    has_kernels = find_spec("numba") is not None
    return sum(
        tensor.source.n_elements / _rate(tensor.type.name, is_copy=tensor.is_copy, has_kernels=has_kernels)
        for tensor in plan.tensors
    ) / max(1, plan.n_workers)


def _rate(name: str, *, is_copy: bool, has_kernels: bool) -> float:
    if is_copy or name in {"F32", "F16", "BF16"}:
        return COPIED
    of_grid = name.startswith(("IQ1", "IQ2", "IQ3"))
    if has_kernels and name in FASTER:
        return GRID_KERNEL if of_grid else KERNEL
    return LIBRARY.get(name, SEARCHED if of_grid else OTHER)


__all__ = ["estimated_seconds"]
