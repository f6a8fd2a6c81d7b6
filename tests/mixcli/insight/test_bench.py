"""Measuring a model: what the child does to its cache, an interruption, the command, and what is refused."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.host.protocol.host_spec import LoadPlan
from mixcli.insight.bench import Bench, BenchRequest
from mixcli.insight.bench_record import BenchTest
from mixcli.insight.compute.bench import samples
from mixcli.insight.orders import BenchOrder, order_from_json
from mixcli.llama.context import Context
from mixcli.llama.device_bandwidth import device_bandwidth, gpu_bandwidths
from mixcli.llama.ggml import device_pointers
from mixcli.llama.model import Model
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import find
from profiles.placement import Placement
from profiles.request import PlanRequest
from tests.conftest import Runner
from tests.support.family import write_small
from tests.support.llama_workers import free_port, start_worker
from tests.support.tiny_models import tiny_model

PLACEMENT = Placement(n_ctx=256, n_batch=64, n_ubatch=32, n_threads=1, n_threads_batch=1, repack=False)
REQUEST = BenchRequest((40, 0), (4,), (0, 24), (1, 3), n_repeats=2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.gguf")


def silent(*_: object) -> None:
    """Report nothing."""


@pytest.mark.parametrize("name", ["llama", "mistral4", "deepseek2"])
def test_every_repetition_begins_at_its_depth(tmp_path: Path, name: str) -> None:
    path = write_small(tmp_path / "m.gguf", name)
    order = order_from_json(BenchOrder(path, LoadPlan(PLACEMENT), REQUEST.tests(), 2).to_json())
    assert isinstance(order, BenchOrder)
    found = []
    with Model.load(path, PLACEMENT) as loaded, Context(loaded, PLACEMENT) as context:
        for test, sample in samples(order, loaded, context, silent):
            assert sample.rate > 0
            assert [context.n_cached(i) for i in range(4)] == [
                test.n_text if i < test.n_batch else 0 for i in range(4)
            ]
            found.append(test)
    assert found == [test for test in REQUEST.tests() for _ in range(2)]


def test_tests_go_depth_by_depth() -> None:
    assert [one.words for one in REQUEST.tests()] == [
        "prefill 40",
        "decode 4",
        "decode 4, 3 texts",
        "prefill 40 at depth 24",
        "decode 4 at depth 24",
        "decode 4 at depth 24, 3 texts",
    ]
    assert replace(REQUEST, prompts=(8, 8), tokens=(0,), depths=(0,)).tests() == (BenchTest("prefill", 8),)


class _Interrupting:
    """A bar whose watcher presses Ctrl-C at the second repetition of its second test."""

    def update(self, done: float, total: float, stage: str = "") -> None:
        if stage == "decode 4" and done >= 3:
            signal.raise_signal(signal.SIGINT)


def test_an_interruption_keeps_what_was_measured(home: Path, model: Path) -> None:
    bench = Bench(find(str(model)), REQUEST, LoadOptions(PlanRequest(n_ctx=None)))
    with pytest.raises(KeyboardInterrupt):
        bench.measure(_Interrupting())
    counts = [(one.test.words, len(one.samples)) for one in bench.run.results]
    assert counts[0] == ("prefill 40", 2)
    assert 3 <= sum(n for _, n in counts) < 12
    assert bench.run.bandwidths["host"] > 0
    assert all(one.roof and one.roof > 0 for one in bench.run.results if one.test.kind == "decode")


@pytest.mark.slow
def test_a_run_is_kept_and_the_next_is_compared_with_it(mixcli: Runner, home: Path, model: Path) -> None:
    arguments = ("bench", str(model), "-p", "16", "-n", "2", "-b", "1,40", "-r", "2")
    first = mixcli(*arguments, "--csv")
    assert first.returncode == 0, first.stderr
    rows = list(csv.DictReader(first.stdout.splitlines()))
    assert [(row["test"], row["n_tokens"], row["texts"]) for row in rows] == [
        ("prefill", "16", "1"),
        ("decode", "2", "1"),
        ("decode", "2", "40"),
    ]
    assert all(float(row["lowest"]) <= float(row["median"]) <= float(row["highest"]) for row in rows)
    assert len(list((home / "data" / "bench").glob("*.json"))) == 1
    second = mixcli(*arguments, "--against", "last", "--json")
    assert second.returncode == 0, second.stderr
    data = json.loads(second.stdout)
    assert [one["test"]["n_batch"] for one in data["results"]] == [1, 1, 40]
    assert all(one["low"] < one["value"] < one["high"] for one in data["against"]["ratios"])


def test_a_dry_run_forecasts_a_model_and_a_machine_that_are_not_there(mixcli: Runner) -> None:
    arguments = (
        "mixtral:Q4_K_M",
        "--profile",
        "rtx-4090",
        "--dry-run",
        "-d",
        "0,4096",
        "-b",
        "1,8",
        "--json",
    )
    done = mixcli("bench", *arguments)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    rates = {(one["test"]["kind"], one["test"]["depth"], one["test"]["n_batch"]): one for one in rows}
    assert len(rates) == 6
    one, eight, deep = (rates["decode", *key] for key in ((0, 1), (0, 8), (4096, 1)))
    assert deep["rate"] < one["rate"] < one["roof"] < eight["roof"]
    assert one["rate"] < eight["rate"]
    assert all(one["rate"] <= one["roof"] for one in rows)
    assert one["seconds"] == pytest.approx(5 * 128 / one["rate"])
    assert deep["seconds"] > 5 * 128 / deep["rate"], "the tokens before are read first"


def test_cards_of_a_profile_that_are_not_here_are_not_measured(
    mixcli: Runner, home: Path, model: Path
) -> None:
    profile = home / "config" / "profiles" / "slow-host.toml"
    profile.parent.mkdir(parents=True)
    profile.write_text(
        'description = "A card that is not here"\n'
        "[host]\nram_gib = 8\ncores = 1\nbandwidth_gbs = 0.1\n"
        '[[gpu]]\nmatch = "RTX 4090"\nkind = "cuda"\nvram_gib = 24.0\nbandwidth_gbs = 1008.0\ntflops = 165.0\n'
    )
    done = mixcli("bench", str(model), "-p", "16", "-n", "0", "-r", "1", "--profile", "slow-host")
    assert done.returncode == 2, done.stderr
    assert (
        "--profile slow-host plans with RTX 4090, which this machine does not have; remove --profile, or estimate with --dry-run"
        in done.stderr
    )
    assert not (home / "data" / "bench").exists()


def test_a_device_reads_its_memory_at_some_rate() -> None:
    (cpu,) = device_pointers("cpu")
    rate = device_bandwidth(cpu, sizes=(1 << 20,), seconds=0.01)
    assert rate is not None
    assert 0.01 < rate < 10_000
    assert gpu_bandwidths(["no such device"]) == {}


def test_a_worker_is_waited_for() -> None:
    """A worker answers before it has computed; then it would seem to read hundreds of times as fast."""
    port = free_port()
    worker = start_worker(port)
    code = (
        "import sys\nfrom mixcli.llama import rpc\nfrom mixcli.llama.device_bandwidth import gpu_bandwidths\n"
        "(device,) = rpc.connect(sys.argv[1])\n"
        "print(gpu_bandwidths([device.buffer_type], sizes=[1 << 25])[device.buffer_type])"
    )
    try:
        command = [sys.executable, "-c", code, f"127.0.0.1:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        worker.kill()
        worker.wait()
    assert done.returncode == 0, done.stderr
    assert 0.01 < float(done.stdout) < 200


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-p", "0", "-n", "0"], "-p 0 and -n 0 leave nothing to measure"),
        (["-d", "1,,2"], "'1,,2'; use whole numbers from 0 to 1,048,576, separated by commas"),
        (["-d", "600"], "prefill 512 at depth 600 needs 1,112 tokens, and the model was trained on 512"),
        (["--ctx", "64"], "--ctx 64 has no room for prefill 512: 512 tokens"),
        (["--against", "last"], "no earlier run of "),
        (["--csv", "--json"], "--csv cannot be combined with --json"),
    ],
)
def test_bad_input_is_one_sentence(
    mixcli: Runner, home: Path, model: Path, arguments: list[str], sentence: str
) -> None:
    done = mixcli("bench", str(model), *arguments)
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert done.stderr.count("mixcli: ") == 1
    assert "Traceback" not in done.stderr
