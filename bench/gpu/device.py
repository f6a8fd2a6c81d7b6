"""The device that is measured: the card, with its bandwidth as it is today, or an RPC worker that stands in for it."""

import argparse
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixcli.system.hardware import measured_bandwidth, this_machine
from profiles.machine import Machine
from tests.support.llama_workers import free_port, start_worker

STAND_IN_GBS = 400.0  # what plans take a worker's memory for, so that they use it


@contextmanager
def device(options: argparse.Namespace) -> Iterator[tuple[Machine, dict[str, Any]]]:
    """Return this machine with one GPU, rates measured now, and what a table says of the card."""
    host = f"main memory reads {measured_bandwidth():.0f} GB/s"
    if options.stand_in:
        endpoint = f"127.0.0.1:{free_port()}"
        worker = start_worker(int(endpoint.rpartition(":")[2]))
        try:
            note = f"a rehearsal, no figure means anything; {host}"
            yield (
                _with_rate(this_machine((endpoint,)), STAND_IN_GBS),
                {"name": "none, an RPC worker stands in", "gbs": STAND_IN_GBS, "note": note},
            )
        finally:
            worker.kill()
            worker.wait()
        return
    name, gbs = card_bandwidth(options.folder)
    machine = this_machine()
    if not machine.gpus:
        raise SystemExit("llama.cpp sees no GPU here; `build` first")
    note = f"a copy on the card moves {gbs:.0f} GB/s, {host}"
    yield _with_rate(machine, gbs), {"name": name, "gbs": gbs, "note": note}


def _with_rate(machine: Machine, gbs: float) -> Machine:
    return replace(machine, gpus=(replace(machine.gpus[0], bandwidth=gbs),))


def card_bandwidth(folder: Path) -> tuple[str, float]:
    """Compile bandwidth.cu and run it: the name of the card, GB a second read and written by a copy on it."""
    program = compile_cuda(folder)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the card's bandwidth cannot be measured: {done.stderr.strip()}")
    name, _, rate = done.stdout.rpartition("|")
    return name.strip(), float(rate)


def compile_cuda(folder: Path) -> Path:
    """Compile bandwidth.cu with nvcc."""
    program = folder / "bandwidth"
    source = Path(__file__).with_name("bandwidth.cu")
    subprocess.run(["nvcc", "-O2", "-o", str(program), str(source)], check=True)
    return program
