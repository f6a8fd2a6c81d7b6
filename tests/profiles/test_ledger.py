"""The ledger against llama.cpp: true shapes of the family's models as header-only files, loaded without allocating."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import pytest

from mixcli.store.headers import shape_of
from profiles.dimensions import Dimensions
from profiles.layout import Experts, Layout, layout_of, on_host
from profiles.ledger import accounts
from profiles.machine import Gpu, Machine
from profiles.memory import GIB, bytes_kv, bytes_logits, cells
from profiles.placement import Placement
from profiles.shape import ModelShape
from quantize.sources.gguf_header import read_header
from tests.support.llama_workers import MIB, Said, ask, no_alloc

SHAPES = (
    "mixtral-8x7b",
    "mistral-small-4",
    "mixtral-8x22b",
    "mistral-7b",
    "mistral-large-3",
    "ministral-3-3b",
    "ministral-3-14b",
    "ministral-3-8b",
)
# (context, micro-batch, flash attention, cache type)
GRID = [
    (n_ctx, n_ubatch, flash, kv)
    for n_ctx, n_ubatch, (flash, kv) in product(
        (2048, 4096, 32768), (32, 512, 2048), ((True, "f16"), (True, "q8_0"), (True, "q4_0"), (False, "f16"))
    )
]
NEAR = 0.02  # MiB; llama.cpp's log has two digits


def shape_at(path: Path) -> ModelShape:
    return shape_of(read_header(path))


@pytest.mark.parametrize("name", SHAPES)
def test_kv_and_compute_on_the_cpu_over_a_grid(name: str, header_only: Callable[[str, str], Path]) -> None:
    path = header_only(name, "Q4_K_M")
    shape = shape_at(path)
    number = SHAPES.index(name)
    for n_ctx, n_ubatch, flash, kv in GRID if number < 2 else GRID[number % 3 :: 3]:  # all, or a third of it
        placement = Placement(n_ctx=n_ctx, n_ubatch=n_ubatch, flash_attn=flash, type_k=kv, type_v=kv)
        said = no_alloc(path, placement)
        (host,) = accounts(shape, Machine(0, 1), placement, on_host(shape, 0))
        logits = bytes_logits(shape, placement.n_sequences)
        assert abs((host.compute - logits) / MIB - said.compute["CPU"]) <= NEAR, placement
        assert abs(host.kv / MIB - said.kv) <= NEAR, placement
        assert host.kv == bytes_kv(shape, cells(n_ctx), kv, kv)


@pytest.mark.parametrize("file_type", ["Q2_K", "Q3_K_M", "Q4_K_M", "Q6_K", "Q8_0"])
@pytest.mark.parametrize("name", SHAPES)
def test_weights_are_exact_to_the_byte(
    name: str, file_type: str, header_only: Callable[[str, str], Path]
) -> None:
    """Every tensor stands in one account: together they are the tensors' bytes, which llama.cpp counts too."""
    path = header_only(name, file_type)
    header = read_header(path)
    shape = shape_of(header)
    (host,) = accounts(shape, Machine(0, 1), Placement(), on_host(shape, 0))
    assert host.weights == shape.bytes_weights == sum(tensor.n_bytes for tensor in header.tensors)
    assert no_alloc(path, Placement()).file_size in (
        f"{shape.bytes_weights / GIB:.2f} GiB",
        f"{shape.bytes_weights / MIB:.2f} MiB",
    )
    for layer, sizes in enumerate(shape.each_layer()):
        there = [t for t in header.tensors if t.name.startswith(f"blk.{layer}.")]
        assert sizes.attention + sizes.experts == sum(t.n_bytes for t in there)


def gpu_layouts(shape: Dimensions) -> dict[str, Layout]:
    """Ways to spread a model over two GPUs and the host (device 2), by name."""
    n = shape.n_layer

    def one_of(layer: int, home: int, experts: int | Experts) -> Experts:
        if layer < shape.n_layer_dense:
            return home, home, home
        gate, up, down = experts if isinstance(experts, tuple) else (experts,) * 3
        return gate, gate if shape.is_fused else up, down

    def spread(homes: Sequence[int], experts: Sequence[int | Experts]) -> Layout:
        all_experts = tuple(one_of(i, *pair) for i, pair in enumerate(zip(homes, experts, strict=True)))
        return Layout(2, tuple(homes), all_experts, next(h for h in (1, 0, 2) if h in homes))

    one, half = [0] * n, n // 2
    a, b = (5, 7) if half > 7 else (1, 1)
    two = [0] * half + [1] * (n - half)
    return {
        "one GPU": spread(one, one),
        "two GPUs": spread(two, two),
        "experts on the host": spread(one, [2] * n),
        "first experts on the host": spread(one, [2] * half + [0] * (n - half)),
        "last experts on the host": spread(one, [0] * half + [2] * (n - half)),
        "every third on the host": spread(one, [2 if i % 3 else 0 for i in range(n)]),
        "one layer split at down": spread(one, [2] * half + [(0, 0, 2)] + [0] * (n - half - 1)),
        "one layer split at gate": spread(one, [2] * half + [(2, 0, 0)] + [0] * (n - half - 1)),
        "two GPUs, some on the host": spread(
            two, [2] * a + [0] * (half - a) + [2] * b + [1] * (n - half - b)
        ),
        "half the layers on the host": spread([2] * half + [0] * (n - half), [2] * half + [0] * (n - half)),
        "second GPU's experts on the host": spread(two, [0] * half + [2] * (n - half)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_compute_on_gpus_in_every_pattern(
    name: str, header_only: Callable[[str, str], Path], workers: list[str]
) -> None:
    path = header_only(name, "Q4_K_M")
    shape = shape_at(path)
    buffers = [f"RPC0[{endpoint}]" for endpoint in workers]
    machine = Machine(0, 1, tuple(Gpu(buffer, 0, kind="rpc") for buffer in buffers))
    cases: list[tuple[str, Placement, Layout]] = []
    for n_ctx, n_ubatch, flash, kv in (
        (4096, 512, True, "f16"),
        (32768, 2048, True, "q8_0"),
        (8192, 256, False, "f16"),
    ):
        for what, layout in gpu_layouts(shape).items():
            if len({*layout.attention}) > 1 and layout.n_gpu_layers > shape.n_layer:
                continue  # without allocating, llama.cpp forgets where it put the norms: test_actual_buffers.py loads such layouts
            placement = Placement(
                n_ctx=n_ctx,
                n_ubatch=n_ubatch,
                flash_attn=flash,
                type_k=kv,
                type_v=kv,
                n_gpu_layers=layout.n_gpu_layers,
                tensor_split=layout.tensor_split(),
                tensor_overrides=layout.overrides(machine, shape),
            )
            assert layout_of(shape, placement, machine) == layout, what
            cases.append((what, placement, layout))
    answers = ask(workers, [(path, placement) for _, placement, _ in cases])
    for (what, placement, layout), said in zip(cases, answers, strict=True):
        check_compute(shape, machine, placement, layout, said, what)


def check_compute(
    shape: ModelShape, machine: Machine, placement: Placement, layout: Layout, said: Said, what: str
) -> None:
    *gpus, host = accounts(shape, machine, placement, layout)
    for gpu in gpus:
        assert abs(gpu.compute / MIB - said.compute.get(gpu.device, 0.0)) <= NEAR, (what, placement)
    assert (
        abs((host.compute - bytes_logits(shape, placement.n_sequences)) / MIB - said.compute["CPU"]) <= NEAR
    ), (what, placement)
    assert abs(sum(a.kv for a in (*gpus, host)) / MIB - said.kv) <= NEAR, (what, placement)


# How many layers have their attention on the GPU, and which of their expert matrices are in host memory all the same.
SOME = (32, {**dict.fromkeys((0, 1, 2, 3, 6), (1, 1, 1)), 9: (1, 1, 0)})
NO_EXPERTS = (32, dict.fromkeys(range(32), (1, 1, 1)))
LATE_LAYERS = (27, {})


# What CUDA and main memory gave on an H200, MiB: Mixtral 8x7B at Q4_K_M, all layers, 8,192 tokens (bench.gpu). A file that is mapped
# counts with its cache and compute buffer only. A GPU that works with attention of the host may be given a little too much.
@pytest.mark.parametrize(
    ("parts", "n_ubatch", "op_offload", "mapped", "gpu", "host", "more"),
    [
        (SOME, 2048, True, False, 24050.09, 5035.67, 0),
        (SOME, 2048, False, False, 23990.33, 5675.74, 0),
        (NO_EXPERTS, 512, True, True, 2515.06, 31.82, 0),
        (LATE_LAYERS, 512, True, True, 24021.77, 191.82, 3),
    ],
)
def test_the_ledger_is_what_a_card_gave(
    parts: tuple[int, dict[int, Experts]],
    n_ubatch: int,
    op_offload: bool,
    mapped: bool,
    gpu: float,
    host: float,
    more: float,
    header_only: Callable[[str, str], Path],
) -> None:
    shape = shape_at(header_only("mixtral-8x7b", "Q4_K_M"))
    n_there, aside = parts
    homes = [1] * (shape.n_layer - n_there) + [0] * n_there
    experts = tuple(aside.get(i, (home, home, home)) for i, home in enumerate(homes))
    layout = Layout(1, tuple(homes), experts, 0)
    placement = Placement(8192, n_ubatch=n_ubatch, op_offload=op_offload, n_gpu_layers=layout.n_gpu_layers)
    there, here = accounts(shape, Machine(0, 16, (Gpu("CUDA0", 0),)), placement, layout)
    assert -0.1 <= there.need / MIB - gpu <= 0.1 + more
    resident = here.need - here.process - (here.weights if mapped else 0)
    assert abs(resident / MIB - host) <= 0.1
