"""The roofline against sums by hand: bytes over bandwidth, operations over TFLOP/s, device by device."""

from dataclasses import replace

import pytest

from profiles.layout import Layout
from profiles.machine import Gpu, Machine
from profiles.memory import bytes_kv_layer
from profiles.placement import Placement
from profiles.rates import HostRates, ProductRates, TypeRates
from profiles.roofline import decode_roof, prefill_roof
from profiles.shape import LayerShape, ModelShape

SHAPE = ModelShape(
    architecture="llama",
    n_layer=2,
    n_embd=4096,
    n_head=32,
    n_head_kv=8,
    head_dim_k=128,
    head_dim_v=128,
    n_ff=14336,
    n_expert=8,
    n_expert_used=2,
    n_vocab=32000,
    n_ctx_train=32768,
    bytes_experts=2 * 3 * 80_000_000,
    bytes_other=2 * 20_000_000 + 60_000_000,
    params_total=10**9,
    params_active=3 * 10**8,
    layers=(LayerShape(20_000_000, *(80_000_000,) * 3, types=("Q4_K",) * 3),) * 2,
    bytes_embedding=30_000_000,
    bytes_output=30_000_000,
)
PLACEMENT = Placement()
ON_HOST = Layout(0, (0, 0), ((0, 0, 0),) * 2, 0)
KV = bytes_kv_layer(SHAPE, 1000)


def test_decode_reads_what_a_token_uses() -> None:
    n_bytes = 2 * (20e6 + 3 * 80e6 * 2 / 8) + 30e6 + 2 * KV
    assert decode_roof(SHAPE, PLACEMENT, ON_HOST, [50.0], 1000) == pytest.approx(50e9 / n_bytes)


def test_texts_share_the_weights_but_not_their_caches() -> None:
    touched = 1 - (1 - 2 / 8) ** 4
    n_bytes = 2 * (20e6 + 3 * 80e6 * touched) + 30e6 + 4 * 2 * KV
    assert decode_roof(SHAPE, PLACEMENT, ON_HOST, [50.0], 1000, 4) == pytest.approx(4 * 50e9 / n_bytes)


def test_each_device_reads_its_own_part_after_the_other() -> None:
    layout = Layout(1, (0, 0), ((0, 0, 0), (1, 1, 1)), 0)
    on_gpu, on_host = 2 * 20e6 + 60e6 + 30e6 + 2 * KV, 60e6
    seconds = on_gpu / 1000e9 + on_host / 50e9
    assert decode_roof(SHAPE, PLACEMENT, layout, [1000.0, 50.0], 1000) == pytest.approx(1 / seconds)


def test_prefill_is_bound_by_products_that_were_measured() -> None:
    machine = Machine(bytes_free=1 << 40, n_cores=8)
    assert prefill_roof(SHAPE, machine, PLACEMENT, ON_HOST, [50.0], 512) is None, "nothing was measured"
    rates = ProductRates(40.0, (0.5, 0.8, 1.0), (0.6, 0.9, 1.5))
    fast = replace(machine, rates=HostRates((TypeRates("Q4_K", rates),)))
    attention, matrix = 2 * 4096 * (2 * 4096 + 2 * 1024), 2 * 4096 * 14336 * 2
    cache = 256 * 2 * 32 * 256
    operations = (
        2 * (attention + 3 * matrix + cache)
    ) / 2  # of the last layer's experts only the last token's
    found = prefill_roof(SHAPE, fast, PLACEMENT, ON_HOST, [50.0], 512)
    assert found == pytest.approx(1.5e12 / operations, rel=0.01)
    slow = prefill_roof(SHAPE, fast, PLACEMENT, ON_HOST, [1.0], 8)
    assert slow is not None
    assert slow < 8 * 1e9 / (2 * 20e6 + 30e6), "a short prompt is bound by reading"
    gpu = Machine(bytes_free=0, n_cores=8, gpus=(Gpu("CUDA0", 1 << 40, tflops=100.0),))
    on_gpu = Layout(1, (0, 0), ((0, 0, 0),) * 2, 0)
    found = prefill_roof(SHAPE, gpu, PLACEMENT, on_gpu, [1000.0, 1.0], 512)
    assert found == pytest.approx(100e12 / operations, rel=0.01), "the host computes nothing"


def test_weights_of_the_host_come_over_the_link_once_a_micro_batch() -> None:
    machine = Machine(1 << 40, 8, gpus=(Gpu("CUDA0", 1 << 40, tflops=1e6, link=10.0),))
    layout = Layout(1, (0, 0), ((1, 1, 1),) * 2, 0)
    found = prefill_roof(SHAPE, machine, PLACEMENT, layout, [1e6, 50.0], 512)
    assert found == pytest.approx(512 * 10e9 / (2 * 3 * 80e6), rel=0.01)
    few = prefill_roof(SHAPE, machine, PLACEMENT, layout, [1e6, 50.0], 16)
    assert few is None, "the host computes a few tokens, and its products were not measured"
