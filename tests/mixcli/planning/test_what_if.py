"""mixcli plan --if: what other hardware brings, as a person types it; comparisons on well-known machines are golden."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mixcli.errors import UsageError
from mixcli.planning.upgrade_options import EXAMPLES, read_upgrade
from profiles.machine import Gpu, Machine
from profiles.profile_files import load_profile
from profiles.rates import HostRates, ProductRates, TypeRates
from profiles.upgrades import memory_gbs, with_bandwidth, with_cores
from tests.mixcli.planning.what_if_cases import CHANGES, GOLDEN, MACHINES, lines

Runner = Callable[..., Any]
GIB = 1 << 30


@pytest.mark.parametrize("profile", MACHINES)
@pytest.mark.parametrize("model", CHANGES)
def test_comparisons_on_well_known_machines(model: str, profile: str) -> None:
    """Regenerate as tests/mixcli/planning/what_if_cases.py says, and read what changed."""
    stored = GOLDEN.read_text("utf-8").splitlines()
    assert list(lines(model, profile)) == [
        line for line in stored if line.startswith(f"{model}\t{profile}\t")
    ]


def test_the_command_shows_each_change_beside_today(mixcli: Runner) -> None:
    ask = (
        "plan",
        "mixtral:Q4_K_M",
        "--profile",
        "4090",
        "--if",
        "ram=+64GiB",
        "--if",
        "gpu=+3090, pcie=4x16",
    )
    done = mixcli(*ask)
    assert done.returncode == 0, done.stderr
    table = [line.split("\t") for line in done.stdout.splitlines()]
    rows = {cells[0]: cells for cells in table if len(cells) > 5}
    assert list(rows) == ["if", "today", "ram=+64GiB", "gpu=+3090, pcie=4x16"]
    assert "(1.00x)" in rows["ram=+64GiB"][5]
    assert "note: ram=+64GiB gains nothing: decode is bound by the bandwidth of host memory" in done.stdout
    assert "instead" not in rows
    data = json.loads(mixcli(*ask, "--json").stdout)
    today, more_ram, card = data["if"]
    assert (today["what"], more_ram["gains_nothing"], card["gains_nothing"]) == ("today", True, False)
    assert (
        card["bytes_on_gpus"]
        > today["bytes_on_gpus"]
        == data["ledger"][0]["experts"] + sum(data["ledger"][0][part] for part in ("attention", "output"))
    )
    assert card["decode_gain"] > 2
    assert today["bounds"]["decode"]["by"] == "the bandwidth of host memory"
    assert [account["device"] for account in card["ledger"]] == ["CUDA0", "CUDA1", "host"]


def test_what_does_not_fit_today_is_compared_and_refused(mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral-8x22b:Q4_K_M", "--profile", "cpu", "--if", "ram=96GiB", "--if", "cores=16")
    assert done.returncode == 4
    assert done.stdout.splitlines()[1].split("\t")[:6] == ["today", "", "", "", "", "does not fit"]
    assert "ram=96GiB\tQ4_K_M\t8192\t0.0 GiB\t79.7 GiB" in done.stdout
    assert "note: cores=16 gains nothing: it does not fit either" in done.stdout
    assert "are free; try " in done.stderr


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ram=96XB", "invalid --if 'ram=96XB'; use ram=96GiB@5600"),
        ("ram=+@5600", "invalid --if 'ram=+@5600'; use ram=96GiB@5600"),
        ("ram=96GiB@5", "MT/s must be a number from 400 to 40,000"),
        ("gpu=3080", "GPUs are 2x3090, "),
        ("gpu=+", "invalid --if 'gpu=+': GPUs are "),
        ("gpu=cpu", "GPUs are 2x3090, "),
        ("pcie=2x16", "write the generation, 3 to 6, and the lanes"),
        ("pcie=4x16", "the machine has no GPU; add one: --if gpu=3090,pcie=4x16"),
        ("bandwidth=0", "invalid --if 'bandwidth=0': GB/s must be a number from 1 to 20,000; use bandwidth=90"),
        ("gpu=24GiB@0", "invalid --if 'gpu=24GiB@0': GB/s must be a number from 1 to 20,000; use gpu=+3090"),
        ("ram=96GiB@0", "invalid --if 'ram=96GiB@0': MT/s must be a number from 400 to 40,000; use ram=96GiB@5600"),
        ("cores=1.5", "invalid --if 'cores=1.5': it must be a whole number from 1 to 1,024"),
        ("pcie=4x3", "and the lanes, 1, 2, 4, 8, 16, 32;"),
        ("cores=many", "invalid --if 'cores=many'"),
        ("channels=8", "--if 'channels=8' has channels without a memory speed; add one, such as ram=@5600"),
        ("ram=@5600,bandwidth=90", "sets the bandwidth of the memory twice; remove bandwidth=90"),
        ("ram=1GiB,ram=2GiB", "sets ram twice; repeat --if to compare both"),
        ("worker=24GiB@fast", "invalid --if 'worker=24GiB@fast'; use worker=HOST:PORT"),
        ("worker=2x3090@10GbE", "a worker has one GPU"),
        ("worker=somewhere", "invalid worker address 'somewhere'"),
        ("memory=1GiB", "; a comma combines several"),
        ("ram", "; a comma combines several"),
    ],
)  # fmt: skip
def test_an_invalid_change_is_one_sentence_with_an_example(text: str, words: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_upgrade(text).apply(load_profile("cpu").machine())
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_worker_that_is_asked_needs_this_machine(mixcli: Runner) -> None:
    done = mixcli("plan", "mixtral:Q4_K_M", "--profile", "cpu", "--if", "worker=10.0.0.9:50052")
    assert (done.returncode, done.stdout) == (2, "")
    assert "has no effect with --profile; use a hypothetical one, such as worker=24GiB@10GbE" in done.stderr


def test_every_change_has_an_example_that_is_read() -> None:
    for key, examples in EXAMPLES.items():
        for example in examples.replace("HOST:PORT", "10.0.0.9:50052").replace(" or ", ", ").split(", "):
            text = f"ram=@5600,{example}" if key == "channels" else example
            assert list(read_upgrade(text).parts)[-1] == key


def test_channels_count_before_the_speed_of_memory() -> None:
    changed, _ = read_upgrade("ram=256GiB@4800, channels=8").apply(load_profile("cpu").machine())
    assert changed.bandwidth == memory_gbs(4800, 8)
    assert changed.bytes_free == 252 * GIB  # the profile's reserve stays


def test_cards_are_numbered_and_workers_stay_first() -> None:
    machine = replace(load_profile("4090").machine(), gpus=(Gpu("CUDA0", GIB),))
    changed, _ = read_upgrade("gpu=+2x3090,worker=24GiB@10GbE,pcie=3x16").apply(machine)
    assert [gpu.name for gpu in changed.gpus] == ["RPC0", "CUDA0", "CUDA1", "CUDA2"]
    assert [round(gpu.link, 1) for gpu in changed.gpus] == [1.0, 12.0, 12.0, 12.0]


def test_measured_rates_grow_with_memory_only_where_they_waited_for_it() -> None:
    fast = TypeRates("Q4_K", ProductRates(30.0, (0.2, 0.3, 0.4), (0.2, 0.3, 0.4)))
    slow = TypeRates("IQ3_S", ProductRates(8.0, (0.2, 0.3, 0.4), (0.2, 0.3, 0.4)))
    machine = Machine(64 * GIB, 8, bandwidth=40.0, rates=HostRates((fast, slow)))

    def decode(gbs: float) -> list[float]:
        return [one.plain.decode for one in with_bandwidth(machine, gbs).rates.types]

    assert decode(40.0) == [30.0, 8.0]
    assert decode(80.0) == [pytest.approx(0.2e12 * 4.5 / 16 / 1e9), 8.0]  # up to what the cores reach
    assert decode(8.0) == pytest.approx([6.0, 6.8])
    assert with_cores(machine, 16).rates.types[1].plain.decode == 16.0
