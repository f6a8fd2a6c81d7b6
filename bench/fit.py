"""Hold the planner to llama.cpp's own automatic fit: bytes of experts on the GPUs, same model, same budgets.

    python -m bench.fit [--sdist UNPACKED]

The fit is compiled from the source distribution that the bindings were built from (fetched with pip when --sdist does not name an
unpacked one) and linked to the installed libllama. RPC workers on loopback stand in for GPUs; the models are header-only files of true
shape, so nothing is allocated. A ratio of 1.0 or more says that the planner places at least as many bytes.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.compiled import compiled
from bench.sdist import llama_cpp
from mixcli.store.headers import shape_of
from profiles.errors import DoesNotFit
from profiles.layout import Layout, layout_of
from profiles.ledger import accounts
from profiles.machine import Gpu, Machine
from profiles.memory import GIB
from profiles.models import known_models
from profiles.placement import Placement
from profiles.planner import PlanRequest, plan
from profiles.shape import ModelShape
from quantize.bindings import library, library_folder
from quantize.sources.gguf_header import read_header
from tests.support.llama_workers import free_port, start_worker, write_header_only

N_UBATCH = 512
NO_FIT = 1  # fit.cpp's exit code for it
# model, file type, context, budgets of the GPUs in MiB
CASES = (
    ("mixtral-8x7b", "Q4_K_M", 4096, (6144,)),
    ("mixtral-8x7b", "Q4_K_M", 8192, (10240,)),
    ("mixtral-8x7b", "Q4_K_M", 8192, (16384,)),
    ("mixtral-8x7b", "Q4_K_M", 32768, (16384,)),
    ("mixtral-8x7b", "Q2_K", 8192, (14336,)),
    ("mixtral-8x7b", "Q6_K", 8192, (12288,)),
    ("mixtral-8x22b", "Q4_K_M", 8192, (16384,)),
    ("mixtral-8x22b", "Q3_K_M", 4096, (12288,)),
    ("mixtral-8x7b", "Q4_K_M", 8192, (8192, 8192)),
    ("mixtral-8x7b", "Q4_K_M", 8192, (6144, 12288)),
    ("mixtral-8x22b", "Q4_K_M", 8192, (12288, 12288)),
    ("mistral-small-4", "Q4_K_M", 8192, (8192,)),
    ("mistral-small-4", "Q4_K_M", 8192, (12288,)),
    ("mistral-small-4", "Q4_K_M", 32768, (16384,)),
    ("mistral-small-4", "Q3_K_M", 8192, (20480,)),
    ("mistral-small-4", "Q6_K", 8192, (16384,)),
    ("mistral-small-4", "Q4_K_M", 8192, (8192, 8192)),
    ("mistral-small-4", "Q4_K_M", 8192, (6144, 12288)),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sdist", type=Path, help="the unpacked source distribution of llama-cpp-python")
    options = parser.parse_args()
    worst = float("inf")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fit = build(llama_cpp(options.sdist), folder / "fit")
        ports = [free_port(), free_port()]
        workers = [start_worker(port) for port in ports]
        try:
            for name, file_type, n_ctx, budgets in CASES:
                path = write_header_only(known_models()[name], file_type, folder / f"{name}-{file_type}.gguf")
                endpoints = [f"127.0.0.1:{port}" for port in ports[: len(budgets)]]
                ours, theirs, over = compare(fit, path, n_ctx, budgets, endpoints)
                worst = min(worst, ours / theirs if theirs else float("inf"))
                ratio = f"{ours / theirs:.3f}" if theirs else "no fit of theirs"
                budget = "+".join(f"{mib / 1024:g}" for mib in budgets)
                note = f", theirs is {over / 2**20:.0f} MiB above the budget" if over > 0 else ""
                print(
                    f"{name} {file_type} ctx {n_ctx} on {budget} GiB: ours {ours / GIB:.2f} GiB, "
                    f"theirs {theirs / GIB:.2f} GiB, ratio {ratio}{note}",
                    flush=True,
                )
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
    print(f"worst ratio {worst:.3f}")
    return 0 if worst >= 1 else 1


def compare(
    fit: Path, path: Path, n_ctx: int, budgets: tuple[int, ...], endpoints: list[str]
) -> tuple[int, int, int]:
    """Return bytes of experts on GPUs in our plan and in theirs, and by how many bytes theirs is above a budget."""
    shape = shape_of(read_header(path))
    gpus = tuple(
        Gpu(f"RPC0[{endpoint}]", mib << 20, kind="rpc")
        for endpoint, mib in zip(endpoints, budgets, strict=True)
    )
    machine = Machine(1 << 50, 8, gpus)
    try:
        ours = on_gpus(
            shape, machine, plan(shape, machine, PlanRequest(n_ctx=n_ctx, kv="f16", n_ubatch=N_UBATCH)).layout
        )
    except DoesNotFit:
        ours = 0
    placement = ask(fit, path, Placement(n_ctx, n_ubatch=N_UBATCH), budgets, endpoints)
    if placement is None:
        return ours, 0, 0
    layout = layout_of(shape, placement, machine)
    ledger = accounts(shape, machine, placement, layout)
    return ours, on_gpus(shape, machine, layout), max(-account.left for account in ledger[:-1])


def on_gpus(shape: ModelShape, machine: Machine, layout: Layout) -> int:
    ledger = accounts(shape, machine, Placement(), layout)
    return sum(account.experts for account in ledger[:-1])


def ask(
    fit: Path, path: Path, wish: Placement, budgets: Sequence[int], endpoints: Sequence[str] = ()
) -> Placement | None:
    """Return `wish` as llama.cpp's fit places it on GPUs of so many MiB; None where it finds no fit. SystemExit when it fails."""
    sizes = (str(wish.n_ctx), str(wish.n_ubatch), wish.type_k, *map(str, budgets))
    done = subprocess.run(
        [str(fit), str(path), *sizes, "--", *endpoints], capture_output=True, text=True, check=False
    )
    if done.returncode == NO_FIT:
        return None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SystemExit(f"llama.cpp's fit failed on {path.name}: {last}")
    return read(done.stdout, wish, len(budgets))


def read(said: str, wish: Placement, n_gpus: int) -> Placement:
    """Read what fit.cpp prints."""
    placement = wish
    overrides = []
    for line in said.splitlines():
        key, *values = line.split(" ")
        if key == "ngl":
            n_layers = int(values[0])
            placement = replace(placement, n_gpu_layers=n_layers if n_layers >= 0 else 1 << 16)
        elif key == "ts" and n_gpus > 1:
            placement = replace(placement, tensor_split=tuple(float(value) for value in values[:n_gpus]))
        elif key == "ot":
            overrides.append((values[0], " ".join(values[1:])))
    return replace(placement, tensor_overrides=tuple(overrides))


def build(root: Path, target: Path) -> Path:
    """Compile llama.cpp's fit with our small program around it; about a minute."""
    sources = [
        Path(__file__).with_name("fit.cpp"),
        *(root / "common" / name for name in ("fit.cpp", "json.cpp", "log.cpp")),
    ]
    libraries = [f"-l:{library(name).name}" for name in ("llama", "ggml", "ggml-base", "ggml-rpc")]
    undefined = "-Wl,--allow-shlib-undefined"  # a CUDA backend's own libraries are found when it runs
    return compiled(sources, root, library_folder(), libraries, target, undefined)


if __name__ == "__main__":
    sys.exit(main())
