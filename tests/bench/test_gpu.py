"""The GPU measurement, as far as it goes without a GPU: what travels, what is compared, what the table says. `make gpu-dry` does more."""

import json
from dataclasses import replace

import pytest

from bench.gpu import build, measure, table
from bench.gpu.pack import wanted
from bench.synthetic import MID
from mixcli.insight.plans import Subject
from mixcli.insight.unseen import unseen_shape
from profiles.layout import layout_of
from profiles.ledger import accounts
from profiles.machine import Gpu, Machine

MACHINE = Machine(64 << 30, 8, (Gpu("CUDA0", 80 << 30),))


@pytest.mark.parametrize(
    ("name", "travels"),
    [
        ("pyproject.toml", True),
        ("llama_cpp/llama_cpp.py", True),
        ("vendor/llama.cpp/ggml/src/ggml.c", True),
        ("vendor/llama.cpp/ggml/src/ggml-cuda/mmq.cu", True),
        ("vendor/llama.cpp/ggml/src/ggml-alloc.c", True),
        ("vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp", False),
        ("vendor/llama.cpp/models/ggml-vocab-phi-3.gguf", False),
        ("vendor/llama.cpp/tools/server/public/index.html.gz", False),
        ("vendor/llama.cpp/.github/workflows/build.yml", False),
    ],
)
def test_what_travels(name: str, travels: bool) -> None:
    assert wanted(name) is travels


def test_cuda_is_built_for_one_architecture() -> None:
    assert "-DCMAKE_CUDA_ARCHITECTURES=89" in build.cmake_args("89")
    assert "-DGGML_CUDA=OFF" in build.cmake_args(None)


def test_a_budget_is_emulated_and_every_way_keeps_within_it() -> None:
    subject = Subject("mid", unseen_shape(MID, "Q4_K_M"), None)
    machine = measure.with_budget(MACHINE, 0.8)
    assert machine.gpus[0].bytes_free == int(0.8 * 2**30) - measure.CONTEXT_BYTES
    ways = dict(measure.ways(subject, machine, 1024, "f16"))
    assert set(ways) == {"our plan", "whole layers", "all experts on the host"}
    on_gpu = {}
    for what, placement in ways.items():
        layout = layout_of(subject.shape, placement, machine)
        ledger = accounts(subject.shape, machine, placement, layout)
        assert ledger[0].left >= 0
        on_gpu[what] = ledger[0].weights
    assert on_gpu["all experts on the host"] < on_gpu["whole layers"] < 430 << 20
    sweeps = dict(measure.sweeps(subject, machine, 1024, "f16", measure.DRY))
    assert sweeps["load mode mmap"].load_mode == "mmap"
    assert not sweeps["without op_offload"].op_offload


def test_the_table_says_what_was_measured_and_what_is_not_as_promised() -> None:
    ours = measure.Row("Q4_K_M", 24, 4096, "f16", "our plan", 512, 900.0, 40.0, off=0.03)
    layers = replace(ours, what="whole layers", decode=35.0, off=0.0)
    dead = replace(ours, what="all experts on the host", died="out of memory")
    result = json.loads(
        json.dumps(measure.as_data({"name": "a card", "note": "a note"}, [ours, layers, dead]))
    )
    lines = list(table.table(result))
    assert "| Q4_K_M | 24 GiB | 4096 | f16 | our plan | 900.0 | 40.0 | 3.00 % |  |" in lines
    problems = "\n".join(table.broken(result))
    assert "the ledger is 3.0 % off" in problems
    assert "1.14x of whole layers, 1.3 were promised" in problems
    assert "out of memory" in problems


def test_without_a_driver_nothing_is_said_of_its_memory() -> None:
    with measure.DriverMemory() as driver:
        pass
    assert driver.peak is None or driver.peak >= 0
