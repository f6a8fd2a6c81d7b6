"""Measure plans on a real GPU, or rehearse it without one.

    python -m bench.gpu pack             here: what must travel, into build/gpu/packed (under 60 MiB)
    python -m bench.gpu build            there, without a network: the CUDA wheel, for the card's own architecture; again to go on
    python -m bench.gpu models           there: synthetic Mixtral 8x7B, all 32 layers, Q4_K_M and Q3_K_M
    python -m bench.gpu measure          there: the grid, into build/gpu/result.json, and the table
    python -m bench.gpu dry              anywhere: trims and configures, two layers, a small grid on an RPC worker

`--folder` is where all of it lies; `--layers` makes smaller models. Every step may be a call of its own.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from bench.gpu import build, measure, pack, table
from bench.synthetic import shape_named, write_model
from mixcli.hardware import this_machine
from mixcli.hub.headers import header_of, shape_of
from mixcli.insight.plans import Subject
from tests.profiles.llama import free_port, start_worker

FOLDER = Path("build/gpu")
MOST_PACKED = 60 << 20
TYPES = ("Q4_K_M", "Q3_K_M")
SHAPE = "mixtral-8x7b"
# a large copy on the card, by whatever library is there, bytes read plus bytes written
BANDWIDTH = (
    "import torch; n = 1 << 32; a = torch.empty(n, dtype=torch.uint8, device='cuda').random_(); b = torch.empty_like(a); "
    "e = [torch.cuda.Event(enable_timing=True) for _ in range(2)]; [b.copy_(a) for _ in range(3)]; e[0].record(); "
    "[b.copy_(a) for _ in range(10)]; e[1].record(); torch.cuda.synchronize(); "
    "print(torch.cuda.get_device_name(0), '|', round(20 * n / e[0].elapsed_time(e[1]) / 1e6))"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--layers", type=int, help="of the synthetic models; default all")
    parser.add_argument("--sdist", type=Path, help="the source distribution (.tar.gz); default: downloaded")
    parser.add_argument("--seconds", type=float, default=540, help="for one call of build")
    return STEPS[(options := parser.parse_args()).step](options)


def do_pack(options: argparse.Namespace, *, wheels: bool = True) -> int:
    sdist = options.sdist or pack.fetch(options.folder / "sdist", version("llama-cpp-python"))
    n_bytes = pack.pack(sdist, options.folder / "packed", wheels=wheels)
    print(f"{options.folder / 'packed'}: {n_bytes / 2**20:.1f} MiB travel, of {MOST_PACKED >> 20} at most")
    return int(n_bytes > MOST_PACKED)


def do_build(options: argparse.Namespace) -> int:
    arch = build.architecture()
    if arch is None:
        raise SystemExit("no NVIDIA driver answers here; on a machine without a GPU there is `dry`")
    source = build.unpack(options.folder / "packed", options.folder / "source")
    made = build.wheel(source, options.folder, arch, options.seconds)
    if made is None:
        print("not finished; call again")
        return 1
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(made)],
        check=True,
    )
    print(f"installed {made.name} for sm_{arch}")
    return 0


def do_models(options: argparse.Namespace) -> int:
    for file_type in TYPES:
        path = options.folder / "models" / f"{SHAPE}-{file_type}.gguf"
        if not path.is_file():
            write_model(path, shape_named(SHAPE, options.layers), file_type)
        print(f"{path}: {path.stat().st_size / 2**30:.1f} GiB")
    return 0


def do_measure(options: argparse.Namespace) -> int:
    name, _, rate = _bandwidth().partition("|")
    if not this_machine().gpus:
        raise SystemExit("llama.cpp sees no GPU here; `build` first")
    card = {
        "name": name.strip(),
        "gbs": float(rate),
        "note": f"a copy on the card moves {float(rate):.0f} GB/s",
    }
    return _measure(options, card, TYPES, measure.Grid(), ())


def _measure(
    options: argparse.Namespace,
    card: dict[str, object],
    types: tuple[str, ...],
    grid: measure.Grid,
    workers: tuple[str, ...],
) -> int:
    found: list[measure.Row] = []
    target = options.folder / "result.json"
    for file_type in types:
        path = options.folder / "models" / f"{SHAPE}-{file_type}.gguf"
        subject = Subject(path.name, shape_of(header_of([path])), path)
        for row in measure.rows(subject, file_type, this_machine(workers), grid):
            found.append(row)
            print(
                f"{row.file_type} {row.budget_gib:g} GiB {row.n_ctx} {row.kv} {row.what}: {row.died or row.decode}",
                flush=True,
            )
            # kept after every cell: a call that ends early loses nothing
            target.write_text(json.dumps(measure.as_data(card, found), indent=1), "utf-8")
    result = json.loads(target.read_text("utf-8"))
    print("\n".join(table.table(result)))
    problems = list(table.broken(result))
    print("\n".join(f"not as promised: {problem}" for problem in problems) or "every promise holds")
    return 0


def do_dry(options: argparse.Namespace) -> int:
    """Rehearse all that needs no GPU; gains over whole layers mean nothing on a worker, the ledger does."""
    if do_pack(options, wheels=False):
        return 1
    source = build.unpack(options.folder / "packed", options.folder / "source")
    build.configure(source, options.folder / "configured", None)
    options.layers = options.layers or 2
    path = options.folder / "models" / f"{SHAPE}-{TYPES[0]}.gguf"
    write_model(path, shape_named(SHAPE, options.layers), TYPES[0])
    port = free_port()
    worker = start_worker(port)
    try:
        card = {
            "name": "none: an RPC worker stands in",
            "gbs": 0.0,
            "note": "a rehearsal, no figure means anything",
        }
        _measure(options, card, TYPES[:1], measure.DRY, (f"127.0.0.1:{port}",))
    finally:
        worker.kill()
        worker.wait()
    result = json.loads((options.folder / "result.json").read_text("utf-8"))
    return int(any(row["died"] or row["off"] > table.MOST_OFF for row in result["rows"]))


def _bandwidth() -> str:
    done = subprocess.run(["python3", "-c", BANDWIDTH], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the card's bandwidth cannot be measured: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip()


STEPS: dict[str, Callable[[argparse.Namespace], int]] = {
    "pack": do_pack,
    "build": do_build,
    "models": do_models,
    "measure": do_measure,
    "dry": do_dry,
}

if __name__ == "__main__":
    sys.exit(main())
