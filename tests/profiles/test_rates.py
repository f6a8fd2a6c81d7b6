"""Rates by type and layout: how they become seconds, and which layout the planner takes for which work."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.pull.remote_shape import unseen_shape
from profiles.errors import BadProfile, BadRequest
from profiles.machine import Gpu, Machine
from profiles.memory import GIB
from profiles.models import known_models
from profiles.placement import Placement
from profiles.planner import plan
from profiles.profile_files import load_profile
from profiles.rates import HostRates, ProductRates, TypeRates, read_rates, write_rates
from profiles.request import PlanRequest, work_of
from profiles.speed import LOW, decode_rates, prefill_rates
from profiles.typical import typical_rates

MIXTURE = unseen_shape(known_models()["mixtral-8x7b"], "Q4_K_S")
PLAIN = ProductRates(24.0, (0.10, 0.13, 0.18), (0.12, 0.14, 0.19))
REPACKED = ProductRates(32.0, (0.10, 0.10, 0.11), (0.18, 0.18, 0.18))
SLOW = ProductRates(6.0, (0.01,) * 3, (0.01,) * 3)


def machine(*rates: TypeRates) -> Machine:
    return Machine(64 * GIB, 2, bandwidth=40.0, rates=HostRates(rates))


def test_a_types_rate_at_the_batches_that_were_measured_and_between() -> None:
    byte = 2 * 8 / 4.5  # operations of a token
    assert PLAIN.seconds_byte(4.5, 1) == pytest.approx(1 / 24e9)
    assert PLAIN.seconds_byte(4.5, 16) == pytest.approx(byte / 0.12e12)
    assert PLAIN.seconds_byte(4.5, 64) == pytest.approx(byte / 0.14e12)
    assert PLAIN.seconds_byte(4.5, 32) == pytest.approx(byte / (0.12e12 * 0.14e12) ** 0.5)
    assert PLAIN.seconds_byte(4.5, 4) == pytest.approx(byte / (24e9 * byte * 0.12e12) ** 0.5)
    assert PLAIN.seconds_byte(4.5, 512) == PLAIN.seconds_byte(4.5, 4096) == pytest.approx(byte / 0.19e12)
    assert PLAIN.seconds_byte(4.5, 512) < PLAIN.seconds_byte(4.5, 90) < PLAIN.seconds_byte(4.5, 64)
    mixture = {"n_expert": 8, "n_used": 2}
    assert PLAIN.seconds_byte(4.5, 1, **mixture) == pytest.approx(1 / 24e9 / 4)
    assert PLAIN.seconds_byte(4.5, 512, **mixture) == pytest.approx(byte / 0.18e12 / 4)
    # of 128 experts with 4 used each gets an eighth of the tokens
    assert PLAIN.seconds_byte(4.5, 128 * 8, n_expert=128, n_used=4) == pytest.approx(
        PLAIN.seconds_byte(4.5, 128, **mixture) / 8
    )


def test_a_type_that_is_known_is_priced_by_its_rates_and_others_as_is_usual_there() -> None:
    names = set(MIXTURE.types)
    assert "Q4_K" in names
    here, placement = machine(TypeRates("Q4_K", SLOW)), Placement(n_ctx=512, repack=False)
    layer = MIXTURE.each_layer()[0]
    for rates in (decode_rates, prefill_rates):
        known, unknown = (rates(MIXTURE, one, placement) for one in (here, machine()))
        assert known.matrix(0, layer, 0) > 2 * unknown.matrix(0, layer, 0)
        other = replace(layer, types=("Q2_K", "", "Q2_K"))
        assert known.matrix(0, other, 0) == pytest.approx(known.matrix(0, layer, 0), rel=0.05)


@pytest.mark.parametrize(
    ("purpose", "repack"), [("50+250", True), ("400+150", False), ("3000+100", False), ("batch", False)]
)
def test_the_layout_is_the_faster_one_for_the_work(purpose: str, repack: bool) -> None:
    here = machine(*(TypeRates(name, PLAIN, REPACKED) for name in MIXTURE.types))
    found = plan(MIXTURE, here, PlanRequest(n_ctx=4096, purpose=purpose))
    assert found.placement.repack == repack
    plain = machine(*(TypeRates(name, PLAIN, None) for name in MIXTURE.types))
    assert not plan(MIXTURE, plain, PlanRequest(n_ctx=4096, purpose=purpose)).placement.repack, (
        "nothing to gain"
    )


def test_work_is_a_name_or_tokens_read_and_written() -> None:
    assert (work_of("3000+100").read, work_of("3000+100").write) == (3000, 100)
    for wrong in ("talk", "0+5", "5+", "1e3+4", "99999999+1", "-1+2"):
        with pytest.raises(BadRequest, match="invalid purpose"):
            work_of(wrong)


def test_the_range_is_narrower_where_the_processor_was_measured() -> None:
    measured = machine(*(TypeRates(name, PLAIN, REPACKED) for name in MIXTURE.types))
    typical, busy, own = (
        machine(*(replace(one, origin=origin) for one in measured.rates.types))
        for origin in ("typical", "busy", "profile")
    )
    part, busy_part = machine(TypeRates("Q4_K", PLAIN)), machine(TypeRates("Q4_K", PLAIN, origin="busy"))
    both = replace(own, rates=HostRates(own.rates.types[:1]).over(typical.rates))
    for here, is_narrow, basis in (
        (measured, True, "from this CPU's measured rates"),
        (busy, True, "from this CPU's rates, measured while other programs ran"),
        (own, True, "from the profile's rates"),
        (typical, False, "from typical rates of such a CPU"),
        (both, False, "from the profile's rates and typical ones"),
        (part, False, "partly from this CPU's measured rates"),
        (busy_part, False, "partly from this CPU's rates, measured while other programs ran"),
        (machine(), False, "not measured"),
    ):
        found = plan(MIXTURE, here, PlanRequest(n_ctx=512)).estimate
        assert (found.low > LOW, found.basis) == (is_narrow, basis)


def test_own_rates_stand_before_typical_ones(tmp_path: Path) -> None:
    own = "[host.rates.Q4_K]\ndecode = 7\nexperts = [0.1, 0.2]\ndense = [0.1, 0.2]\n"
    head = "description = 'x'\n[host]\nram_gib = 8\ncores = 2\ntypical = 'avx2'\n"
    (tmp_path / "mine.toml").write_text(head + own)
    rates = load_profile("mine", tmp_path).machine().rates
    assert len(rates.types) == len(typical_rates("avx2").types)
    (q4,) = (one for one in rates.types if one.type == "Q4_K")
    assert (q4.plain.decode, q4.repacked) == (7.0, None)
    assert rates.origins(["Q4_K", "Q6_K", "MXFP4"]) == {"profile", "typical", None}
    assert rates.attention is not None
    assert "decode that of AVX2" in load_profile("cpu-avx512-64gb").description


def test_beside_a_gpu_the_hosts_rates_count_and_nothing_is_repacked() -> None:
    card = Gpu("CUDA0", 12 * GIB, bandwidth=900.0, link=12.0, tflops=70.0)
    rates = HostRates(tuple(TypeRates(name, PLAIN, REPACKED) for name in MIXTURE.types))
    fast, slow = (
        plan(MIXTURE, Machine(64 * GIB, 8, (card,), rates=one), PlanRequest(n_ctx=4096))
        for one in (rates, rates.scaled(0.25, 100.0))
    )
    assert fast.estimate.decode > 2 * slow.estimate.decode
    unpacked = rates.of("Q4_K", repacked=False)
    assert unpacked is not None
    placement = replace(fast.placement, repack=True)
    byte = decode_rates(MIXTURE, Machine(64 * GIB, 8, (card,), rates=rates), placement).by_type["Q4_K"]
    assert byte > unpacked.seconds_byte(4.5, 1, n_expert=8, n_used=2)


def test_profiles_carry_rates_and_a_mistake_is_named(tmp_path: Path) -> None:
    typical = load_profile("cpu-avx2-32gb").machine()
    assert typical.rates.origins(["Q4_K"]) == {"typical"}
    q4 = typical.rates.of("Q4_K", repacked=False)
    assert q4 is not None
    assert q4.decode <= typical.bandwidth
    assert load_profile("apple-m-series").machine().rates == HostRates()
    rates = HostRates((TypeRates("Q4_K", PLAIN, REPACKED), TypeRates("Q6_K", PLAIN)))
    assert read_rates(write_rates(rates), "measured") == rates
    before = read_rates(
        {"Q4_K": {"decode": 1, "experts": [1, 32], "dense": [1, 1]}}, "profile"
    )  # without 64 tokens
    assert before.types[0].plain.experts == (1, pytest.approx(4), 32)
    for text, words in (
        ("typical = 'neon'", "'typical' is 'neon'; it must be one of avx2, avx512"),
        ("rates = 3", "'rates' must be tables"),
        ("[host.rates.NF4]\ndecode = 1", "'NF4' is not a weight type; "),
        ("[host.rates.q4_k]\ndecode = 1", "'q4_k' is not a weight type; did you mean 'Q4_K'?"),
        ("[host.rates.Attention]\nplain = 1", "did you mean 'attention'?"),
        (
            "[host.rates.Q4_K]\ndecode = 99999\nexperts = [1, 1]\ndense = [1, 1]",
            "'Q4_K' decodes 99999 GB/s, more than the memory's 'bandwidth_gbs' of 40; correct one of them",
        ),
        ("[host.rates.Q4_K]\ndecode = 1", "'Q4_K' must have the keys decode, experts and dense"),
        ("[host.rates.Q4_K]\ndecode = 0\nexperts = [1, 1]\ndense = [1, 1]", "'Q4_K.decode' has 0"),
        (
            "[host.rates.Q4_K]\ndecode = 1\nexperts = [1]\ndense = [1, 1]",
            "'Q4_K.experts' is [1]; it must be 3 rates: for 16, 64 and 512 tokens",
        ),
    ):
        (tmp_path / "mine.toml").write_text(f"description = 'x'\n[host]\nram_gib = 8\ncores = 2\n{text}\n")
        with pytest.raises(BadProfile, match=re.escape(words)):
            load_profile("mine", tmp_path)
