"""The search for a layout takes short cuts; none of them may change what it finds."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.graph.model import Graph
from profiles.graph.nodes import BatchShape, LayerHome
from profiles.layout import Layout
from profiles.packing import KINDS, SPLITS, Budget, pack
from profiles.packing_bound import at_least
from profiles.packing_one_gpu import Packer
from profiles.prices import WHOLE, LayerSizes, Parts, Prices
from profiles.schedule import program
from profiles.shape import LayerShape, ModelShape
from profiles.speed import DeviceRates, Rates
from tests.profiles.file_choices import shapes

MIB = 1 << 20
quick = settings(deadline=None, max_examples=60)

byte_costs = st.floats(1e-12, 1e-9)
devices = st.builds(DeviceRates, st.floats(0, 1e-3), byte_costs, st.floats(0, 1e-3), byte_costs, byte_costs)


@st.composite
def goods(draw: st.DrawFn) -> LayerSizes:
    sizes = draw(st.lists(st.integers(1, 400), min_size=1, max_size=3, unique=True))
    gate, up = draw(st.sampled_from([(90, 90), (180, 0)]))  # gate and up may be one tensor
    kinds = [LayerShape(20 * MIB, gate * MIB, up * MIB, size * MIB) for size in sizes]
    n_dense = draw(st.integers(0, 2))  # leading layers without experts
    layers = draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=14 - n_dense))
    return LayerSizes((*[LayerShape(70 * MIB, 0, 0, 0)] * n_dense, *layers), 16 * MIB, 60 * MIB)


@st.composite
def rooms(draw: st.DrawFn) -> Budget:
    n_bytes = draw(st.integers(0, 4096)) * MIB
    return Budget(
        n_bytes, n_bytes - draw(st.integers(0, 90)) * MIB, n_bytes - draw(st.integers(90, 200)) * MIB
    )


@st.composite
def rates(draw: st.DrawFn, n_gpus: int) -> Rates:
    return Rates(
        tuple(draw(devices) for _ in range(n_gpus + 1)),
        draw(st.floats(0, 1e-3)),
        draw(st.floats(1e-10, 1e-8)),
    )


@quick
@given(goods(), st.data())
def test_no_layout_is_quicker_than_its_bound(one: LayerSizes, data: st.DataObject) -> None:
    n_gpus = data.draw(st.integers(1, 3))
    there = [data.draw(rooms()) for _ in range(n_gpus)]
    costs, spare = data.draw(rates(n_gpus)), data.draw(st.integers(0, 8192)) * MIB
    shape, prices = shape_of(one), Prices(one, costs)
    for kind in KINDS:
        layout = pack(prices, there, kind, spare, from_disk=False)
        if layout is not None:
            seconds = costs.seconds(shape, layout) * (1 + 1e-9)
            for uncut in (False, True):
                bound = at_least(prices, there, kind, spare, from_disk=False, uncut=uncut)
                assert bound is not None
                assert bound <= seconds


def test_a_bound_that_counts_whole_layers_is_closer() -> None:
    """Nine layers on cards with room for two and a half each: five would fit if they could be cut, four do."""
    one = LayerSizes((LayerShape(20 * MIB, 90 * MIB, 90 * MIB, 120 * MIB),) * 9, 16 * MIB, 60 * MIB)
    costs = Rates(
        (DeviceRates(matrix_byte=1e-10), DeviceRates(matrix_byte=1e-10), DeviceRates(matrix_byte=1e-9)),
        0.0,
        0.0,
    )
    room = int(2.5 * 300) * MIB + 5 * 36 * MIB
    there = [Budget(*(room,) * 3), Budget(*(room + one.bytes_output,) * 3)]
    kind, prices = KINDS[2], Prices(one, costs)
    cut, uncut = (
        at_least(prices, there, kind, 1 << 40, from_disk=False, uncut=uncut) for uncut in (False, True)
    )
    layout = pack(prices, there, kind, 1 << 40, from_disk=False)
    assert layout is not None
    assert cut is not None
    assert cut < uncut == pytest.approx(costs.seconds(shape_of(one), layout))


def shape_of(one: LayerSizes) -> ModelShape:
    """Return a model with these layers; only bytes of layers and of the output count."""
    experts = one.bytes_experts
    return replace(
        shapes("mixtral")["Q4_K_M"],
        n_layer=len(one.layers),
        layers=one.layers,
        bytes_experts=experts,
        bytes_other=one.bytes_weights - experts + one.bytes_output,
        bytes_embedding=0,
        bytes_output=one.bytes_output,
    )


@quick
@given(goods(), rates(1), st.integers(0, 4096), st.sampled_from([(), SPLITS[1:4], SPLITS]))
def test_one_room_among_many_is_filled_as_if_it_were_the_only_one(
    one: LayerSizes, costs: Rates, room: int, splits: tuple[Parts, ...]
) -> None:
    counts, n_bytes, prices = one.counts[-1], room * MIB, Prices(one, costs)
    alone = Packer(prices, 0, splits, tight=False)
    many = Packer(prices, 0, splits, tight=False, most=(counts, 4096 * MIB))
    every = [saved for saved, *_ in alone._points(counts, n_bytes)]
    found = [packer.some_of(counts, n_bytes) for packer in (alone, many)]
    for (packed,) in found:
        assert abs(packed.saved - max(every)) <= 1e-9 * max(1e-3, abs(max(every)))
        assert packed.n_bytes <= n_bytes
        assert (packed.whole, packed.split) != (counts, None)


@quick
@given(goods(), st.data())
def test_gpus_that_are_alike_are_packed_as_if_each_had_its_own_prices(
    one: LayerSizes, data: st.DataObject
) -> None:
    """A change of the last digits makes three GPUs of equal rates three different ones."""
    costs, spare = data.draw(rates(1)), 1 << 40
    gpu, host = costs.devices
    there = [data.draw(rooms()) for _ in range(3)]
    alike = replace(costs, devices=(gpu, gpu, gpu, host))
    apart = replace(
        costs,
        devices=(*(gpu._replace(matrix=gpu.matrix * (1 + i * 1e-15) + i * 1e-18) for i in range(3)), host),
    )
    shape = shape_of(one)
    for kind in KINDS:
        layouts = [pack(Prices(one, each), there, kind, spare, from_disk=False) for each in (alike, apart)]
        seconds = [layout and alike.seconds(shape, layout) for layout in layouts]
        assert seconds[0] == (seconds[1] and pytest.approx(seconds[1]))


layers = st.tuples(st.sampled_from([0, 1]), st.sampled_from([WHOLE, (0, 0, 0), *SPLITS]))


@quick
@given(
    st.lists(st.tuples(st.lists(layers, min_size=1, max_size=4), st.integers(1, 12)), min_size=1, max_size=4),
    st.data(),
)
def test_further_layers_of_the_same_kind_need_no_larger_buffers(
    runs: list[tuple[list[tuple[int, Parts]], int]], data: st.DataObject
) -> None:
    spread = [layer for several, n in runs for layer in several * n]
    spread.sort(key=lambda layer: layer[0])  # runs of the first GPU come first
    layout = Layout(
        2,
        tuple(home for home, _ in spread),
        tuple((home if a else 2, home if b else 2, home if c else 2) for home, (a, b, c) in spread),
        spread[-1][0],
    )
    short = layout.shortened()
    assert len(short.attention) <= len(layout.attention)
    shape, offload = shapes("mixtral")["Q4_K_M"], data.draw(st.sampled_from([None, 0]))
    flash = data.draw(st.booleans())
    batch = BatchShape(flash, "f16", "f16")
    parts = tuple(data.draw(st.integers(1, 400)) * MIB for _ in range(4))

    def peaks(one: Layout) -> tuple[int, ...]:
        homes = [LayerHome(a, *e) for a, e in zip(one.attention, one.experts, strict=True)]
        return program(Graph(shape, batch, homes, one.output, 2, offload), 3).peaks(512, 4096, parts)

    assert peaks(short) == peaks(layout)
