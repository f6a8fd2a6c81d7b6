"""Measure plans on a real GPU, or rehearse it without one.

    python -m bench.gpu pack       here: what must travel, into build/gpu/packed (under 60 MiB); --python 3.12 for that machine's Python,
                                   --arch 90 to compile here, with nvcc, for that card
    python -m bench.gpu build      there, without a network: packed wheels and a CUDA build for the card's own architecture, into build/gpu/site
    python -m bench.gpu models     there: synthetic Mixtral 8x7B, all 32 layers, Q4_K_M and Q3_K_M, and a small one for `same`
    python -m bench.gpu same       there: the self-test and greedy text on the card against the processor; with the demo where it is in the store, or --demo FILE
    python -m bench.gpu measure    there: the grid, into build/gpu/result.json, and the table
    python -m bench.gpu dry        anywhere: all of these on a bare environment, an RPC worker in the place of the card

There, python3 with numpy and pip, nvcc, cmake and a compiler must be installed. A step that ran out of time (`--seconds`) ends with 75: the same
call resumes it.
"""

import argparse
import importlib
import sys
from pathlib import Path

from bench.gpu import build

# a module each, imported when it is called: a bare machine has nothing before `build`
STEPS = ("pack", "build", "models", "same", "measure", "dry")
NEED_SITE = ("models", "same", "measure")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"), help="where all of it lies")
    parser.add_argument("--sdist", type=Path, help="the source distribution (.tar.gz); default: downloaded")
    parser.add_argument("--python", help="pack for that version, such as 3.12; default: this one")
    parser.add_argument(
        "--arch", help="pack a build for cards of that compute capability, such as 90; needs nvcc here"
    )
    parser.add_argument(
        "--short", action="store_true", help="measure what four minutes allow: one model, one context"
    )
    parser.add_argument("--seconds", type=float, default=540, help="for one call of build or measure")
    parser.add_argument("--layers", type=int, help="of the synthetic models; default all")
    parser.add_argument(
        "--demo", type=Path, help="a GGUF that `same` compares too; default: the store's demo"
    )
    parser.add_argument(
        "--stand-in", action="store_true", help="no card: small, with an RPC worker in its place"
    )
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.demo = options.demo and options.demo.resolve()
    if options.step in NEED_SITE:
        build.enter(options.folder)
    return int(importlib.import_module(f"bench.gpu.{options.step}").main(options))


if __name__ == "__main__":
    sys.exit(main())
