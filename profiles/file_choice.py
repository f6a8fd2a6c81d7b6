"""One choice of file for the whole program: every file type planned for a machine, and the one that suits what is preferred.

The rule: `balanced` takes a doubled decode rate for 2 % of perplexity, `speed` for 8 %; `quality` takes the least loss that decodes 10
tokens a second, and never more loss than `balanced`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log2

from profiles.machine import Machine
from profiles.planner import MIN_CTX, Plan, plan_if_it_fits
from profiles.quality import Loss, loss_of
from profiles.request import Request, Rule
from profiles.shape import ModelShape

DOUBLED = {"balanced": 2.0, "speed": 8.0}  # percent of perplexity that a doubled decode rate is worth
FLUENT = 10.0  # tokens a second that `quality` asks for, where nothing else is said


@dataclass(frozen=True)
class Row:
    """One file type of a model on a machine; without a plan it does not fit. `loss` is that of its type, whatever the machine."""

    type: str
    shape: ModelShape
    loss: Loss
    plan: Plan | None

    @property
    def size(self) -> int:
        """Return the bytes of all weights."""
        return self.shape.bytes_weights

    @property
    def decode(self) -> float:
        """Return tokens a second, 0 where it does not fit."""
        return self.plan.estimate.decode if self.plan else 0.0

    @property
    def bytes_on_gpus(self) -> int:
        """Return the bytes of weights on GPUs."""
        return sum(account.weights for account in self.plan.ledger[:-1]) if self.plan else 0

    @property
    def is_on_gpus(self) -> bool:
        """Return whether every layer lies on GPUs; the token embedding never does."""
        if self.plan is None:
            return False
        layout = self.plan.layout
        placed = {*layout.attention, *(at for experts in layout.experts for at in experts), layout.output}
        return layout.host not in placed


@dataclass(frozen=True)
class FileChoice:
    """The rows, largest file first, the one that is chosen (None where nothing fits) and why, in words.

    `best` is what would be chosen if every type were on offer; the same row where it is.
    """

    rows: tuple[Row, ...]
    chosen: Row | None
    rule: Rule
    why: str
    best: Row | None = None

    def row(self, file_type: str) -> Row:
        """Return the row of a type; KeyError for one that was not planned."""
        return {row.type: row for row in self.rows}[file_type]

    @property
    def largest_on_gpus(self) -> Row | None:
        """Return the largest file that lies wholly on GPUs."""
        return next((row for row in self.rows if row.is_on_gpus), None)


def choose(
    shapes: Mapping[str, ModelShape],
    machine: Machine,
    request: Request,
    rule: Rule | None = None,
    only: Collection[str] | None = None,
) -> FileChoice:
    """Plan a model in every file type of `shapes` and choose one. Raises what plan() raises for a request that no file can meet.

    Without a context all types get the same: the largest of the usual ones with which one of them fits. Types are compared at one size
    of a micro-batch; only the chosen one is planned over all of them. With `only` the choice is among these, the others are compared.
    """
    rule = rule or Rule()
    sized = sorted(shapes.items(), key=lambda pair: -pair[1].bytes_weights)
    for n_ctx in _contexts(sized, machine, request):
        wish = replace(request, n_ctx=n_ctx)
        rows = [Row(name, shape, loss_of(name, shape), _look(shape, machine, wish)) for name, shape in sized]
        chosen, why = pick([row for row in rows if only is None or row.type in only], rule)
        if chosen is not None:
            best, _ = pick(rows, rule)
            exact = replace(chosen, plan=plan_if_it_fits(chosen.shape, machine, wish) or chosen.plan)
            rows = [exact if row is chosen else row for row in rows]
            return FileChoice(tuple(rows), exact, rule, why, exact if best is chosen else best)
    return FileChoice(tuple(rows), None, rule, why)


def pick(rows: Sequence[Row], rule: Rule) -> tuple[Row | None, str]:
    """Return the row that the rule chooses among those that fit, and why; None where none fits."""
    fitting = [row for row in rows if row.plan is not None]
    if not fitting:
        return None, "nothing fits"
    fast = [row for row in fitting if rule.min_tps is None or row.decode >= rule.min_tps]
    if not fast:
        return max(
            fitting, key=lambda row: row.decode
        ), f"none reaches {rule.min_tps:g} tok/s, this is the fastest"
    among = "" if rule.min_tps is None else f" among those with at least {rule.min_tps:g} tok/s"
    if rule.prefer != "quality":
        worth = DOUBLED[rule.prefer]
        why = f"{rule.prefer}, doubled decode is worth {worth:g} % of perplexity{among}"
        return max(fast, key=lambda row: _score(row, worth)), why
    balanced = max(fast, key=lambda row: _score(row, DOUBLED["balanced"]))
    floor = FLUENT if rule.min_tps is None else rule.min_tps
    fluent = [row for row in fast if row.decode >= floor and row.loss.percent <= balanced.loss.percent]
    if not fluent:
        return balanced, f"balanced, as none of less loss reaches {floor:g} tok/s"
    return min(
        fluent, key=lambda row: (row.loss.percent, -row.decode)
    ), f"quality, least loss with at least {floor:g} tok/s"


def _score(row: Row, worth: float) -> float:
    return log2(row.decode) - row.loss.percent / worth


def _contexts(
    sized: Sequence[tuple[str, ModelShape]], machine: Machine, request: Request
) -> Sequence[int | None]:
    """Return the contexts to try, largest first."""
    if request.n_ctx is not None or not sized:
        return (request.n_ctx,)
    n_ctx = min(sized[0][1].n_ctx_train or machine.n_ctx, machine.n_ctx)
    found = [n_ctx]
    while found[-1] > MIN_CTX:
        found.append(found[-1] // 2)
    return found


def _look(shape: ModelShape, machine: Machine, request: Request) -> Plan | None:
    """Return a plan at the machine's smallest micro-batch, at any where that does not fit."""
    if request.n_ubatch is None:
        found = plan_if_it_fits(shape, machine, replace(request, n_ubatch=min(machine.ubatches)))
        if found is not None:
            return found
    return plan_if_it_fits(shape, machine, request)


__all__ = ["FileChoice", "Row", "Rule", "choose", "pick"]
