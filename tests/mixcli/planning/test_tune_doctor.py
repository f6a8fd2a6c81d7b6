"""tune measures and is believed afterwards; the doctor says what is there and what is missing."""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixcli.planning import tune
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.plan_load import plan_load
from mixcli.planning.report import Subject
from mixcli.planning.tune import candidates, measure
from mixcli.pull.remote_shape import unseen_shape
from mixcli.store.headers import header_of, shape_of
from mixcli.store.store import find
from mixcli.system.hardware import this_machine
from profiles.machine import Gpu, Machine
from profiles.request import PlanRequest
from tests.support.llama_workers import free_port, start_worker
from tests.support.synthetic import MID
from tests.support.tiny_models import tiny_model

Runner = Callable[..., Any]


@pytest.fixture
def worker() -> Iterator[str]:
    port = free_port()
    process = start_worker(port)
    yield f"127.0.0.1:{port}"
    process.kill()
    process.wait()


STATES = {"ok", "warn", "fail"}


@pytest.mark.model
@pytest.mark.slow
def test_what_tune_found_is_used_and_shown(mixcli: Runner, with_demo: Path) -> None:
    nothing = mixcli("tune", "demo", "--ctx", "512", "--show")
    assert nothing.returncode == 2
    assert "no measurements of" in nothing.stderr
    done = mixcli("tune", "-m", "demo", "--ctx", "512", "--seconds", "4", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert "the plan" in {row["what"] for row in rows}
    assert all(row["decode"] > 0 and row["prefill"] > 0 and row["measured"] for row in rows)
    shown = json.loads(mixcli("tune", "-m", "demo", "--ctx", "512", "--show", "--json").stdout)
    assert shown == rows
    kept = json.loads(
        next(iter(json.loads((with_demo / "cache/tuned.json").read_text()).values()))["placement"]
    )
    order = plan_load(find("demo"), LoadOptions(PlanRequest(n_ctx=512)))
    assert json.loads(order.placement.to_json()) == kept
    assert set(order.expected) == {"host"}
    assert (
        mixcli("tune", "-m", "demo", "--ctx", "512", "--seconds", "0", "--target-tps", "1e6").returncode == 4
    )


@pytest.mark.model
@pytest.mark.slow
def test_a_target_is_searched_over_contexts_and_file_types(
    mixcli: Runner, with_demo: Path, demo_path: Callable[[str], Path]
) -> None:
    other = demo_path("Q8_0").parent
    (with_demo / "data/models" / other.name).mkdir()
    for file in other.iterdir():
        os.link(file, with_demo / "data/models" / other.name / file.name)
    ask = ("tune", "-m", "demo:Q4_K_M", "--ctx", "512", "--ram", "2GiB", "--seconds", "0")
    done = mixcli(*ask, "--target-tps", "0.05", "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    context, stored, estimated, *_ = json.loads(done.stdout)
    assert context["what"] == "--ctx 8192"  # all that the model was trained for
    assert context["measured"] and context["decode"] >= 0.05
    assert (stored["what"], stored["measured"]) == ("demo:Q8_0", True)
    assert (estimated["what"], estimated["measured"]) == ("about Q6_K", False)
    shown = mixcli("tune", "-m", "demo:Q4_K_M", "--ctx", "512", "--ram", "2GiB", "--show").stdout
    assert re.search(r"about Q6_K\t.*estimate", shown)


@pytest.mark.model
@pytest.mark.slow
def test_layers_of_experts_are_measured_on_a_worker(
    demo_path: Callable[[str], Path], worker: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "PROMPT", 16)
    monkeypatch.setattr(
        tune, "TOKENS", 1
    )  # two processes that spin on the same cores are slow: seconds a token
    path = demo_path("Q4_K_M")
    subject = Subject("demo", shape_of(header_of([path])), path)
    machine = this_machine([worker])
    machine = replace(machine, gpus=tuple(replace(gpu, bytes_free=200 << 20) for gpu in machine.gpus))
    found = dict(candidates(subject, machine, PlanRequest(n_ctx=512)))
    what = next(what for what in found if re.match(r"[1-9]\d* layers? of experts", what))
    assert found[what].n_gpu_layers > 0
    placement = replace(found[what], n_threads=1, n_threads_batch=1)
    assert measure(subject, machine, what, placement).decode > 0


def test_more_and_fewer_expert_layers_are_candidates() -> None:
    gpu = Gpu("CUDA0", 200 << 20, bandwidth=400.0)
    found = dict(
        candidates(
            Subject("mid", unseen_shape(MID, "Q4_K_M"), None),
            Machine(2 << 30, 2, (gpu,)),
            PlanRequest(n_ctx=512),
        )
    )
    layers = sorted(int(what.split()[0]) for what in found if re.search("layers? of experts", what))
    assert layers[0] == 0
    assert len(layers) >= 3
    assert found["the plan"].tensor_overrides
    assert {"n_ubatch 2048", "1 thread", "repacking off"} <= found.keys()


def test_tune_needs_a_model_that_is_here(mixcli: Runner) -> None:
    done = mixcli("tune", "-m", "mixtral")
    assert done.returncode == 2
    assert "pull" in done.stderr


def test_the_doctor_goes_through_everything(mixcli: Runner) -> None:
    done = mixcli("doctor", "--json")
    assert done.returncode == 0, done.stderr
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert {
        "python",
        "program",
        "bindings",
        "compiler",
        "backends",
        "self-test",
        "gpus",
        "memory",
        "limits",
        "bandwidth",
        "processor",
        "folders",
        "disk",
        "store",
        "network",
    } == set(found)
    assert {one["state"] for one in found.values()} <= STATES
    assert "MIXCLI_MEASURE is off" in found["processor"]["words"]
    assert found["store"]["state"] == "warn"
    assert "mixcli pull demo" in found["store"]["words"]


def test_the_doctor_sees_a_crashing_build(mixcli: Runner) -> None:
    done = mixcli("doctor", "--json", MIXCLI_SELFTEST_CRASH="1")
    found = {one["what"]: one for one in json.loads(done.stdout)}
    assert found["self-test"]["state"] == "warn"
    assert "make setup" in found["self-test"]["words"]


def test_what_loads_a_model_refuses_the_profile_of_another_machine(mixcli: Runner, tmp_path: Path) -> None:
    """llama.cpp takes the CPU where there is no such GPU, and its rates were remembered as the GPU's."""
    path = str(tiny_model(tmp_path / "tiny.gguf"))
    for command in (("plan", path, "--verify"), ("tune", path, "--seconds", "0")):
        done = mixcli(*command, "--profile", "rtx-4090", MIXCLI_MEASURE="off")
        assert done.returncode == 2, done.stderr
        assert "--profile rtx-4090 plans with RTX 4090, which this machine does not have" in done.stderr
    assert "no measurements" in mixcli("tune", path, "--show", "--profile", "rtx-4090").stderr
