"""Loading as planned: when memory runs out the next smaller plan is taken once, and a plan that was wrong is said."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.errors import MixcliError
from mixcli.llama import ggml
from mixcli.llama.buffers import Buffers, buffers_in, compare
from mixcli.llama.loading import unpinned_note
from profiles.placement import Placement
from quantize import bindings

LIMIT = 4 << 30  # bytes of address space
CHILD = """
import json, resource, sys
from pathlib import Path
from mixcli.llama.loading import load
from profiles.placement import Placement
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
order = json.loads(sys.stdin.read())
placements = [Placement.from_json(text) for text in order]
smaller = (placements[1], {"host": {"weights": 0, "kv": 1 << 20, "compute": 1 << 20}}) if placements[1:] else None
loaded = load(Path(sys.argv[1]), placements[0], {}, smaller)
print(json.dumps([loaded.placement.n_ctx, loaded.notes]))
"""


def load_in_little_memory(path: Path, *contexts: int) -> "subprocess.CompletedProcess[str]":
    placements = [
        Placement(n_ctx=n, n_threads=1, n_threads_batch=1, repack=False).to_json() for n in contexts
    ]
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(LIMIT)],
        input=json.dumps(placements),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.model
def test_out_of_memory_takes_the_smaller_plan_once(demo_path: Callable[[str], Path], home: Path) -> None:
    path = demo_path("Q4_K_M")
    done = load_in_little_memory(path, 1 << 20, 512)
    assert done.returncode == 0, done.stderr
    n_ctx, notes = json.loads(done.stdout)
    assert n_ctx == 512
    assert any("loaded the next smaller plan" in note for note in notes)
    assert any("were planned" in note for note in notes)  # its ledger was made wrong on purpose
    alone = load_in_little_memory(path, 1 << 20)
    assert alone.returncode != 0
    assert "DoesNotFit" in alone.stderr


def test_memory_that_the_driver_did_not_pin_is_noted() -> None:
    """As WSL has it: CUDA's host buffer is refused, and llama.cpp takes the CPU's in its place (ggml-cuda.cu, host_buffer_type_alloc_buffer)."""
    pinned = [
        "load_tensors:        CUDA0 model buffer size = 12000.00 MiB",
        "load_tensors:    CUDA_Host model buffer size = 15872.00 MiB",
        "load_tensors:          CPU model buffer size =    70.31 MiB",
    ]
    refused = [line.replace("CUDA_Host", "      CPU") for line in pinned]
    placement = Placement(n_gpu_layers=33, load_mode="none")
    assert unpinned_note(placement, ["CUDA0"], pinned) == ""
    assert "did not pin 15.6 GiB of host memory" in unpinned_note(placement, ["CUDA0"], refused)
    assert unpinned_note(replace(placement, load_mode="mmap"), ["CUDA0"], refused) == "", "as planned"
    assert unpinned_note(placement, ["MTL0"], refused) == unpinned_note(placement, [], refused) == ""


def test_buffer_lines_are_summed_by_device() -> None:
    log = [
        "load_tensors: CPU_Mapped model buffer size =  100.00 MiB",
        "load_tensors: CPU_REPACK model buffer size =   50.00 MiB",
        "load_tensors:      CUDA0 model buffer size = 2000.00 MiB",
        "llama_kv_cache:    CUDA0 KV buffer size =  512.00 MiB",
        "sched_reserve:     CUDA0 compute buffer size =  200.50 MiB",
        "sched_reserve: CUDA_Host compute buffer size =   20.00 MiB",
        "llama_context: CUDA_Host  output buffer size =    0.50 MiB",
    ]
    mib = 1 << 20
    found = buffers_in(log, ["CUDA0"])
    assert found["CUDA0"] == Buffers(2000 * mib, 512 * mib, int(200.5 * mib))
    assert found["host"] == Buffers(None, 0, int(20.5 * mib))
    planned = {"CUDA0": {"weights": 2000 * mib, "kv": 512 * mib, "compute": 100 * mib}}
    (one,) = compare(planned, found)
    assert one.real - one.planned == int(100.5 * mib)
    assert one.off > 0.02


@pytest.mark.parametrize("versioned", [True, False])
def test_a_wheel_may_name_its_libraries_with_or_without_a_version(
    versioned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["libggml-base.so", *["libggml-base.so.0"] * versioned]
    for name in names:
        (tmp_path / name).touch()
    monkeypatch.setattr(bindings, "library_folder", lambda: tmp_path)
    assert bindings.library("ggml-base").name == names[-1]
    with pytest.raises(MixcliError, match="no ggml-rpc library"):
        ggml.load("ggml-rpc")
