"""Files of Mixtral 8x7B for cards at a context of 8,192: `python -m tests.mixcli.tailor.recipes` prints what recipes.txt keeps.

Losses are drawn, not measured: what is kept is how the budget of a plan becomes types, and what the plan of the result is.
"""

from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np

from mixcli.errors import DoesNotFit
from mixcli.planning.machines import machine_of
from mixcli.pull.remote_shape import source_of
from mixcli.tailor.fitting import FittedFile, Fitting, TailorGoal, candidates_for
from mixcli.tailor.subject import TailorSubject
from profiles.machine import Machine
from profiles.models import known_models
from profiles.request import PlanRequest
from quantize.ggml_types import BLOCK
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.choice import TailoringProblem, is_free

N_CTX = 8192
CARDS = ("rtx-3090", "rtx-4090", "rtx-4060-ti-16gb", "rtx-3060-12gb", "laptop-8gb-gpu")
GPU, FLUENT = TailorGoal("gpu"), TailorGoal("tps", 10.0)


@cache
def mixtral() -> TailorSubject:
    """Return Mixtral 8x7B without weights."""
    return TailorSubject(source_of(known_models()["mixtral-8x7b"]), "mixtral", None, "mixtral")


def problem(candidates: tuple[T, ...]) -> TailoringProblem:
    """Return losses as measured ones are: four times smaller for each bit, and layers that differ."""
    random = np.random.default_rng(4)
    bits = np.array([8 * BLOCK[one][1] / BLOCK[one][0] for one in candidates])
    model = mixtral().model
    costs = {one.name: random.lognormal(0, 0.7) * 4.0**-bits for one in model.tensors if is_free(one)}
    return TailoringProblem(model.tensors, candidates, costs)


def fitting_for(machine: Machine, goal: TailorGoal) -> Fitting:
    """Return the choices on a machine."""
    candidates = candidates_for(mixtral(), goal, machine)
    return Fitting(mixtral(), problem(candidates), machine, PlanRequest(n_ctx=N_CTX))


def lines() -> Iterator[str]:
    """Yield what fits each card whole, or else decodes 10 tok/s."""
    for name in CARDS:
        for goal in (GPU, FLUENT):
            try:
                found = fitting_for(machine_of(name), goal).tailored(goal)
            except DoesNotFit as error:
                yield f"{name}, {goal.words}: {error}"
                continue
            yield f"{name}, {goal.words}: {_described(found)}"
            break


def _described(found: FittedFile) -> str:
    plan = found.row.plan
    assert plan
    kinds = Counter(found.types[one.name].name for one in mixtral().model.tensors if is_free(one))
    experts = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items(), key=lambda pair: T[pair[0]]))
    on = ", ".join(f"{account.device} {account.weights:,}" for account in plan.ledger)
    return f"{found.n_bytes:,} bytes ({on}), decode {plan.estimate.shown(plan.estimate.decode)} tok/s; experts {experts}"


if __name__ == "__main__":
    for line in lines():
        print(line)  # noqa: T201
