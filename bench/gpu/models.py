"""The synthetic models of the measurement, made on the spot: see tests/support/synthetic.py."""

import argparse
from pathlib import Path

from bench.gpu.grid import asked
from tests.support.synthetic import MID, shape_named, write_model

SHAPE = "mixtral-8x7b"
STAND_IN_LAYERS = 2


def main(options: argparse.Namespace) -> int:
    layers = options.layers or (STAND_IN_LAYERS if options.stand_in else None)
    for file_type in asked(options).file_types:
        path = model(options.folder, file_type)
        write_model(path, shape_named(SHAPE, layers), file_type)
        print(f"{path}: {path.stat().st_size / 2**30:.1f} GiB", flush=True)
    write_model(small_model(options.folder), MID)
    return 0


def model(folder: Path, file_type: str) -> Path:
    """Return the path of the model of a file type."""
    return folder / "models" / f"{SHAPE}-{file_type}.gguf"


def small_model(folder: Path) -> Path:
    """Return the path of a Mixtral of 400 MB, small enough to be computed by the processor too."""
    return folder / "models" / "mid-Q4_K_M.gguf"
