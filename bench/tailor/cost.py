"""What a tailored file costs beside the plain one pass: a checkpoint with the layer shapes of Mixtral 8x7B, `mixcli convert` and `mixcli tailor`.

Both begin with nothing but the checkpoint, whose pages are in memory, and compiled kernels. `mixcli tailor` makes a file that reads the text,
the statistics of some chunks of 512 tokens, the table of errors of every candidate type, the choice, and the file.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.checkpoint import make_checkpoint, n_weights
from bench.process import Cost, measure
from bench.quantize import warm
from quantize.kernels import dispatch
from quantize.tailor.choice import CANDIDATES

BITS = 4.2  # a weight of the file: between Q3_K_M and Q4_K_M
PLAIN, TAILORED = "mixcli convert", "mixcli tailor"


def costs(work: Path, n_layer: int, n_chunks: int) -> Iterator[tuple[str, Cost]]:
    """Yield the cost of each command when it is measured."""
    source = work / "hf"
    if not source.exists():
        make_checkpoint(source, n_layer)
    size = int(n_weights(n_layer) * BITS / 8)
    tailor = ["tailor", str(source), "--size", str(size), "--chunks", str(n_chunks), "--no-verify"]
    plain = ["convert", str(source), "--output-type", "Q4_K_M"]
    for one in CANDIDATES:
        dispatch.quantizer(one.name, with_imatrix=True)  # compiled once, and kept
    dispatch.quantizer("Q8_0")
    yield PLAIN, _measured(work, plain)
    yield TAILORED, _measured(work, tailor)


def _measured(work: Path, command: list[str]) -> Cost:
    run, home = work / "run", work / "home"
    for folder in (run, home):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    warm(work / "hf")
    own = {"MIXCLI_HOME": str(home), "MIXCLI_MEASURE": "off"}
    line = [sys.executable, "-m", "mixcli", *command, "-o", str(run / "out.gguf")]
    return measure(line, run, own)
