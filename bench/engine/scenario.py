"""What a comparison of engines is made of: its sides, what was promised of them, and how many pairs are measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.engine.subject import Setting
from bench.estimate import Promise
from bench.turns import N_LONG_PAIRS, N_PAIRS, Side


@dataclass(frozen=True)
class Scenario:
    """One comparison; `sides` makes its sides for a model and may look for the best of several settings of a peer first."""

    name: str
    title: str
    sides: Callable[[Setting], Sequence[Side]]
    promises: tuple[Promise, ...]
    n_pairs: Mapping[str, int] = field(
        default_factory=lambda: {"demo": N_PAIRS, "true-shape": N_LONG_PAIRS}
    )  # by the models that it is measured on

    def promised(self, model: str) -> tuple[Promise, ...]:
        return tuple(promise for promise in self.promises if not promise.models or model in promise.models)
