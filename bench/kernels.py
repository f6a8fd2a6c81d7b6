"""Quantizing speed: mixcli's compiled quantizers against ggml_quantize_chunk, same machine, same minute, same bytes.

    python -m bench.kernels [--types Q4_K,Q6_K] [--json FILE]

Prints million weights a second for each type, on one thread and on two (row slabs in a thread pool), and how many times faster:
both take turns (bench/turns.py).
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.estimate import Numbers, most_others, ratio, side_medians
from bench.report import write_result
from bench.turns import N_PAIRS, Side, all_turns
from quantize import ggml
from quantize.ggml_types import GGMLQuantizationType
from quantize.kernels.dispatch import Quantizer, quantizer

TYPES = "Q2_K,Q3_K,Q4_K,Q5_K,Q6_K,IQ4_XS,Q8_0,Q4_0,Q4_1,Q5_0,Q5_1,IQ4_NL,IQ3_S,IQ3_XXS,IQ2_S,IQ2_XS,IQ2_XXS"
SLAB = 64  # rows that a thread takes at a time
SECONDS = 0.2  # of a piece
Quantize = Callable[[NDArray[np.float32]], NDArray[np.uint8]]


def using(quantize: Quantizer, imatrix: NDArray[np.float32] | None) -> Quantize:
    return lambda rows: quantize(rows, imatrix)


def rate(quantize: Quantize, rows: NDArray[np.float32], threads: int) -> dict[str, float]:
    """Return million weights a second, the best of several rounds in about SECONDS."""
    slabs = [rows[at : at + SLAB] for at in range(0, len(rows), SLAB)]
    best, end = 0.0, time.perf_counter() + SECONDS
    with ThreadPoolExecutor(threads) as pool:
        while True:
            start = time.perf_counter()
            for _ in pool.map(quantize, slabs):
                pass
            now = time.perf_counter()
            best = max(best, rows.size / (now - start) / 1e6)
            if now > end:
                return {"rate": best}


def compared(theirs: Callable[[], Numbers], ours: Callable[[], Numbers]) -> dict[str, float | bool]:
    """Measure both in turns; return their rates, how many times as fast ours is with its interval, and what others had of the machine."""
    rounds = all_turns([Side("ggml", theirs), Side("mixcli", ours)], N_PAIRS, show=False)
    sides = side_medians(rounds)
    found = ratio(rounds, ("mixcli", "rate"), ("ggml", "rate"))
    low, high = found.ends or (found.value, found.value)
    return {
        **{name: numbers["rate"] for name, numbers in sides.items()},
        "ratio": found.value,
        "low": low,
        "high": high,
        "pairs": found.n_pairs,
        "disturbed": found.is_disturbed,
        "others": most_others(rounds) or 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--types", default=TYPES, help=f"comma separated (default {TYPES})")
    parser.add_argument("--json", type=Path, help="also write the results here")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    rows = (random.standard_normal((512, 4096)) * 0.02).astype(np.float32)
    importance = random.random(4096).astype(np.float32)
    results = []
    print(f"{'type':<16}{'threads':>8}{'ggml M/s':>10}{'mixcli M/s':>12}{'faster':>8}")
    for name in args.types.split(","):
        type_ = GGMLQuantizationType[name]
        for imatrix in (None, importance):
            fast = quantizer(name, imatrix is not None)
            if fast is None:
                print(
                    f"{name:<14}{'the library serves' if imatrix is not None else 'no quantizer without imatrix':>30}"
                )
                continue
            ours, theirs = using(fast, imatrix), using(partial(ggml.quantize_chunk, type_), imatrix)
            assert np.array_equal(ours(rows[:8]), theirs(rows[:8]))
            for threads in (1, 2):
                label = name + (" imatrix" if imatrix is not None else "")
                row = compared(
                    partial(rate, theirs, rows[: SLAB * 4], threads), partial(rate, ours, rows, threads)
                )
                print(
                    f"{label:<16}{threads:>8}{row['ggml']:>10.1f}{row['mixcli']:>12.1f}{row['ratio']:>7.1f}x"
                    f"  {row['low']:.1f} to {row['high']:.1f}",
                    flush=True,
                )
                results.append({"type": label, "threads": threads, **row})
    if args.json:
        write_result(args.json, {"rows": results})


if __name__ == "__main__":
    main()
