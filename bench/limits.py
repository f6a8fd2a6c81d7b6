"""How near one pass of `mixcli convert` comes to what the machine's disk, memory and processors allow.

    python -m bench.limits [--types Q4_K_M,IQ3_M] [--layers 1] [--threads 2] [--pairs 4] [--folder DIR]

Makes a checkpoint with the layer shapes of Mixtral 8x7B and converts it; in turns with that it writes as many bytes as the result has to the
same disk, reads the checkpoint out of the page cache, and quantizes as many weights of the same types in memory, with nothing else to do.
Writes bench/results/limits.json, and docs/benchmarks.md again. Needs 5 GB of disk for a layer.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bench.checkpoint import check_disk, make_checkpoint, n_weights
from bench.estimate import Numbers, most_others
from bench.kernels import rate, using
from bench.limits_page import limits_table
from bench.process import measure
from bench.report import RESULTS, write_result
from bench.report import main as write_docs
from bench.turns import N_LONG_PAIRS, Side, all_turns
from quantize.encoder import KERNEL_WORTH, quantizer
from quantize.ggml_types import GGMLQuantizationType
from quantize.sources.gguf_header import read_header

CHUNK = 1 << 24


@dataclass
class Limits:
    """One checkpoint, converted to one mix of types, and what bounds that."""

    folder: Path
    mix: str
    threads: int

    def __post_init__(self) -> None:
        """Convert once, so that kernels are compiled and the result's size and types are known."""
        self.convert()
        header = read_header(self._target)
        self.n_bytes = self._target.stat().st_size
        self.weights = Counter[GGMLQuantizationType]()
        for tensor in header.tensors:
            self.weights[tensor.type] += tensor.n_elements
        self.data = np.random.default_rng(0).bytes(CHUNK)

    @property
    def _source(self) -> Path:
        return self.folder / "hf"

    @property
    def _target(self) -> Path:
        return self.folder / f"{self.mix}.gguf"

    def convert(self) -> Numbers:
        self._target.unlink(missing_ok=True)
        command = [sys.executable, "-m", "mixcli", "convert", str(self._source), "-t", self.mix]
        options = ["--output", str(self._target), "--threads", str(self.threads)]
        own = {"TMPDIR": str(self.folder), "NUMBA_CACHE_DIR": str(self.folder / "cache")}
        return {"seconds": measure([*command, *options], self.folder, own).seconds}

    def write(self) -> Numbers:
        """Write the result's number of bytes, one piece after the other, and bring them to the disk."""
        path = self.folder / "written"
        start = time.perf_counter()
        with path.open("wb", buffering=0) as file:
            for at in range(0, self.n_bytes, CHUNK):
                file.write(memoryview(self.data)[: self.n_bytes - at])
            os.fsync(file.fileno())
        seconds = time.perf_counter() - start
        path.unlink()
        return {"seconds": seconds}

    def read(self) -> Numbers:
        """Read the checkpoint out of the page cache in pieces, on all threads."""
        (path,) = self._source.glob("*.safetensors")

        def pieces(first: int) -> None:
            buffer = bytearray(CHUNK)
            with path.open("rb", buffering=0) as file:
                for at in range(first * CHUNK, path.stat().st_size, self.threads * CHUNK):
                    file.seek(at)
                    file.readinto(buffer)

        start = time.perf_counter()
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(pieces, range(self.threads)))
        return {"seconds": time.perf_counter() - start}

    def quantize(self) -> Numbers:
        """Quantize some weights in memory on all threads; the time that as many as the result has of each type would take."""
        rows = (np.random.default_rng(0).standard_normal((512, 4096)) * 0.02).astype(np.float32)
        seconds = 0.0
        for type_, n in self.weights.items():
            if type_ != GGMLQuantizationType.F32:
                quantize = using(quantizer(type_, False, KERNEL_WORTH), None)
                seconds += n / 1e6 / rate(quantize, rows, self.threads)["rate"]
        return {"seconds": seconds}

    def result(self, n_pairs: int) -> Mapping[str, object]:
        """Measure all in turns."""
        names = ("convert", "write", "read", "quantize")
        rounds = all_turns([Side(name, partial(getattr(self, name))) for name in names], n_pairs)
        self._target.unlink()
        return {
            "mix": self.mix,
            "bytes": self.n_bytes,
            "seconds": {name: [numbers["seconds"] for numbers in rounds[name]] for name in names},
            "others": most_others(rounds) or 0.0,
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--types", default="Q4_K_M,IQ3_M", help="comma separated (%(default)s)")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pairs", type=int, default=N_LONG_PAIRS, help="(%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    parser.add_argument("--json", type=Path, default=RESULTS / "limits.json")
    options = parser.parse_args()
    weights = n_weights(options.layers)
    check_disk(options.folder or Path(tempfile.gettempdir()), 4 * weights)
    result: dict[str, object] = {"layers": options.layers, "weights": weights, "threads": options.threads}
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-limits-") as temporary:
        make_checkpoint(Path(temporary, "hf"), options.layers)
        mixes = (Limits(Path(temporary), mix, options.threads) for mix in options.types.split(","))
        result["mixes"] = [one.result(options.pairs) for one in mixes]
    write_result(options.json, result)
    print("\n".join(limits_table(result)))
    if options.json == RESULTS / "limits.json":
        write_docs()


if __name__ == "__main__":
    main()
