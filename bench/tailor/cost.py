"""What a tailored file costs beside the plain one pass: a checkpoint with the layer shapes of Mixtral 8x7B, `mixcli convert` and `mixcli tailor`.

Both begin with nothing but the checkpoint, whose pages are in memory, compiled kernels and compiled modules. `mixcli tailor` makes a file that
reads the text, the statistics of some chunks of 512 tokens, the table of errors of every candidate type, the choice, and the file.
"""

import compileall
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import mixcli
import profiles
import quantize
from bench.checkpoint import make_checkpoint, n_weights
from bench.estimate import Numbers
from bench.process import measure
from bench.quantize import warm
from bench.tailor.page import CPU, PLAIN, TAILORED, WALL
from bench.turns import Side
from quantize.kernels import dispatch
from quantize.tailor.choice import CANDIDATES

BITS = 4.2  # a weight of the file: between Q3_K_M and Q4_K_M


def sides(work: Path, n_layer: int, n_chunks: int) -> list[Side]:
    """Return both commands, ready to be measured."""
    source = work / "hf"
    if not source.exists():
        make_checkpoint(source, n_layer)
    size = int(n_weights(n_layer) * BITS / 8)
    tailor = ["tailor", str(source), "--size", str(size), "--chunks", str(n_chunks), "--no-verify"]
    plain = ["convert", str(source), "--output-type", "Q4_K_M"]
    _compile(work / "kernels")
    return [
        Side(PLAIN, lambda: _measured(work, plain)),
        Side(TAILORED, lambda: _measured(work, tailor)),
    ]


def _compile(kernels: Path) -> None:
    """Compile all that the commands run, into a cache of its own, from which nothing else is removed."""
    os.environ["NUMBA_CACHE_DIR"] = str(kernels)
    for one in CANDIDATES:
        dispatch.quantizer(one.name, with_imatrix=True)
    for name in ("Q4_K", "Q6_K", "Q8_0"):
        dispatch.quantizer(name)
    for package in (mixcli, profiles, quantize):
        compileall.compile_dir(package.__path__[0], quiet=1)


def _measured(work: Path, command: list[str]) -> Numbers:
    run, home = work / "run", work / "home"
    for folder in (run, home):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    warm(work / "hf")
    own = {"MIXCLI_HOME": str(home), "MIXCLI_MEASURE": "off", "PYTHONDONTWRITEBYTECODE": ""}
    stages = work / "stages.json"
    line = [sys.executable, "-m", "bench.tailor.stages", str(stages), *command, "-o", str(run / "out.gguf")]
    cost = measure(line, run, own)
    found = {name: round(value, 3) for name, value in asdict(cost).items() if name != "others"}
    for stage, (wall, cpu) in json.loads(stages.read_text("utf-8")).items():
        found |= {f"{WALL}{stage}": round(wall, 2), f"{CPU}{stage}": round(cpu, 2)}
    return found
