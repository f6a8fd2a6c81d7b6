"""What the network to workers adds to an estimate: round trips and bytes of a layout, in decode and in prefill."""

from dataclasses import replace

import pytest

from profiles.layout import Layout
from profiles.machine import Gpu, Machine
from profiles.memory import GIB
from profiles.network import Visits, Way, least_change, network_seconds, visits, ways
from profiles.planner import PlanRequest, plan
from profiles.shape import ModelShape
from profiles.upgrades import bounds
from tests.profiles.file_choices import shapes

NEAR = Gpu("RPC0[a:1]", 20 * GIB, "rpc", link=1.0, round_trip=0.0002, bandwidth=200.0, tflops=20.0)
HOST, W0, W1 = 2, 0, 1


def mixtral() -> ModelShape:
    return shapes("mixtral")["Q4_K_M"]


def machine(*gpus: Gpu, gib: int = 16) -> Machine:
    return Machine(gib * GIB, 8, gpus=gpus)


def layout(attention: tuple[int, ...], experts: tuple[tuple[int, int, int], ...], output: int) -> Layout:
    return Layout(HOST, attention, experts, output)


def test_visits_are_those_of_real_connections() -> None:
    """Counted in the commands of llama.cpp to a worker: a mixture of 12 layers, 2 experts a token, that wholly or partly is there."""
    shape = mixtral()

    def at_worker(attention: tuple[int, ...], experts: tuple[tuple[int, int, int], ...]) -> Visits:
        return visits(shape, layout(attention, experts, W0))[W0]

    whole = at_worker((W0,) * 12, ((W0,) * 3,) * 12)
    assert (whole.trips, whole.hiddens, whole.n) == (1, 1, 1)
    last_half = at_worker((HOST,) * 6 + (W0,) * 6, ((HOST,) * 3,) * 6 + ((W0,) * 3,) * 6)
    assert (last_half.trips, last_half.hiddens, last_half.n) == (1, 3, 1)
    four_aside = at_worker((W0,) * 12, ((HOST,) * 3,) * 4 + ((W0,) * 3,) * 8)
    assert (four_aside.trips, four_aside.hiddens, four_aside.n) == (9, 13, 5)
    assert four_aside.bytes_graph == pytest.approx(330_972, rel=0.05)
    assert whole.bytes_graph == pytest.approx(217_980, rel=0.05)


def test_what_passes_from_one_worker_to_the_next_goes_through_the_host() -> None:
    found = visits(mixtral(), layout((W0, W0, W1, W1), ((W0,) * 3, (W0,) * 3, (W1,) * 3, (W1,) * 3), W1))
    assert [(at.trips, at.hiddens) for at in found[:2]] == [(3, 1 + 3), (1, 3)]


def test_seconds_are_round_trips_and_bytes() -> None:
    shape = mixtral()
    found = ways(shape, machine(replace(NEAR, link=2.0), replace(NEAR, round_trip=0.01)), 1, 1000)
    assert found[0].hidden == pytest.approx(4 * shape.n_embd / 2e9)
    assert found[1].trip == 0.01
    assert found[2] == Way()
    n = shape.n_layer
    on_second = layout((W1,) * n, ((W1,) * 3,) * n, W1)
    n_bytes = 4 * shape.n_embd + 2 * 1000 + 4 * shape.n_vocab
    assert network_seconds(found, shape, on_second) == pytest.approx(0.01 + n_bytes / 1e9)
    prompt = ways(shape, machine(NEAR, NEAR), 512, 1000, is_prompt=True)
    n_bytes = 4 * shape.n_embd + 2 * 1000 + (4 * shape.n_vocab + n * 18_000) / 512
    assert network_seconds(prompt, shape, on_second) == pytest.approx(0.0002 / 512 + n_bytes / 1e9)


def test_without_workers_nothing_is_added() -> None:
    found = plan(mixtral(), machine(Gpu("CUDA0", 24 * GIB), gib=64), PlanRequest(n_ctx=8192))
    assert found.estimate.network is None
    assert ways(mixtral(), machine(Gpu("CUDA0", GIB)), 1, 1) == ()
    assert least_change(ways(mixtral(), machine(NEAR, Gpu("CUDA0", GIB)), 1, 1)) == 0.0


def test_a_longer_way_is_slower_and_shown() -> None:
    """The model is too large for the host alone."""
    near, far = (
        plan(mixtral(), machine(replace(NEAR, round_trip=trip)), PlanRequest(n_ctx=8192))
        for trip in (0.0002, 0.02)
    )
    assert far.estimate.decode < near.estimate.decode
    share = near.estimate.network
    assert share is not None
    assert 0 < share.decode_seconds < 1 / near.estimate.decode
    assert 0 < share.prefill_seconds < 1 / near.estimate.prefill
    assert share.workers[0].device == "RPC0[a:1]"
    assert share.workers[0].trips >= 1
    assert share.bytes_token >= 4 * mixtral().n_embd
    assert share.bytes_ubatch > 16 * share.bytes_token


def test_so_long_a_way_is_not_gone_where_the_host_has_room() -> None:
    far = plan(mixtral(), machine(replace(NEAR, round_trip=2.0), gib=64), PlanRequest(n_ctx=8192))
    assert far.estimate.network is None
    assert far.ledger[0].need == 0


def test_the_network_binds_a_plan_over_a_long_way() -> None:
    slow = machine(replace(NEAR, round_trip=0.5))
    found = plan(mixtral(), slow, PlanRequest(n_ctx=8192))
    assert bounds(mixtral(), slow, found.placement, found.layout, 0).decode.by == "the network to the workers"
