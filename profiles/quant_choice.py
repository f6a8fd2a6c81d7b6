"""Choose the quant that suits a machine: plan every quant and apply the preference.

The rule: `balanced` takes a doubled decode rate for 2 % of perplexity, `speed` for 8 %; `quality` takes the least loss that decodes 10
tokens per second, and never more loss than `balanced`. Where only types that lose more than 10 % fit at the context that was planned first,
half of it is taken if that admits a better one. A rate is the middle of its estimated range.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import log2

from profiles.machine import Machine
from profiles.placement import Placement
from profiles.planner import Plan, plan_if_it_fits
from profiles.quality import Loss, loss_of
from profiles.request import PlanRequest, Rule
from profiles.search import least_decode_seconds
from profiles.shape import ModelShape
from profiles.speed import HIGH, LOW

DOUBLED = {"balanced": 2.0, "speed": 8.0}  # percent of perplexity that a doubled decode rate is worth
FLUENT = 10.0  # tokens per second that `quality` asks for, where nothing else is said
LOSSY = 10.0  # percent: worse than that, a type costs more than half the context


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
        """Return tokens per second, the middle of the estimate's range; 0 where it does not fit."""
        return self.plan.estimate.middle(self.plan.estimate.decode) if self.plan else 0.0

    @property
    def n_ctx(self) -> int:
        """Return the context in tokens, 0 where it does not fit."""
        return self.plan.n_ctx if self.plan else 0

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
    """The rows, largest file first, the one that is chosen (None where nothing fits or is fast enough) and why, in words.

    `fastest` is the fastest on offer, None where nothing fits. `best` is what would be chosen if every type were on offer; the same row
    where it is. `machine` is what was planned for.
    """

    rows: tuple[Row, ...]
    chosen: Row | None
    rule: Rule
    why: str
    machine: Machine
    fastest: Row | None = None
    best: Row | None = None

    def row(self, file_type: str) -> Row:
        """Return the row of a type; KeyError for one that was not planned."""
        return {row.type: row for row in self.rows}[file_type]

    @property
    def largest_on_gpus(self) -> Row | None:
        """Return the largest file that is wholly on GPUs."""
        return next((row for row in self.rows if row.is_on_gpus), None)


def choose(
    shapes: Mapping[str, ModelShape],
    machine: Machine,
    request: PlanRequest,
    rule: Rule | None = None,
    only: Collection[str] | None = None,
) -> FileChoice:
    """Plan a model in every file type of `shapes` and choose one. Raises what plan() raises for a request that no file can meet.

    Every row has the plan that its type has when it is named. With `only` the choice is among these, the others are compared.
    """
    rule = rule or Rule()
    sized = sorted(shapes.items(), key=lambda pair: -pair[1].bytes_weights)
    rows = tuple(row_of(name, shape, machine, request) for name, shape in sized)
    offered = [row for row in rows if only is None or row.type in only]
    chosen, why = pick(offered, rule)
    fastest = max((row for row in offered if row.plan), key=lambda row: row.decode, default=None)
    return FileChoice(rows, chosen, rule, why, machine, fastest, chosen and pick(rows, rule)[0])


def chosen_of(
    shapes: Mapping[str, ModelShape], machine: Machine, request: PlanRequest, rule: Rule
) -> Row | None:
    """Return the row that choose() chooses; types that cannot win are not planned.

    The most that a type can score is known from its loss, and from the seconds that no plan of it can beat. The best is certain when it has the
    longest context that there is, and loses so little that no shorter one is considered.
    """
    if rule.prefer == "quality" or not machine.gpus:  # every type counts there, or each is planned at once
        return choose(shapes, machine, request, rule).chosen
    usual = max(machine.n_ctx, request.least_ctx)
    longest = request.n_ctx or min(usual, *(one.n_ctx_train or usual for one in shapes.values()))
    worth, rows = DOUBLED[rule.prefer], list[Row]()
    most = {
        name: log2((LOW + HIGH) / 2 / least_decode_seconds(shape, machine, Placement(n_ctx=longest)))
        - loss_of(name, shape).percent / worth
        for name, shape in shapes.items()
    }
    for name in sorted(shapes, key=lambda name: -most[name]):
        best, _ = pick(rows, rule)
        certain = best is not None and best.loss.percent <= LOSSY and best.n_ctx == longest
        if best is not None and certain and _score(best, worth) > most[name]:
            break
        rows.append(row_of(name, shapes[name], machine, request))
    return pick(sorted(rows, key=lambda row: -row.size), rule)[0]


def row_of(name: str, shape: ModelShape, machine: Machine, request: PlanRequest) -> Row:
    """Return the row of one type."""
    return Row(name, shape, loss_of(name, shape), plan_if_it_fits(shape, machine, request))


def pick(rows: Sequence[Row], rule: Rule) -> tuple[Row | None, str]:
    """Return the row that the rule chooses among those that fit, and why; None where none fits or none is fast enough."""
    fitting = [row for row in rows if row.plan is not None]
    if not fitting:
        return None, "no quant fits"
    fast = [row for row in fitting if rule.min_tps is None or row.decode >= rule.min_tps]
    if not fast:
        return None, f"no quant reaches {rule.min_tps:g} tok/s"
    among = _with_room(fast)
    chosen, why = _pick_quality(among, rule) if rule.prefer == "quality" else _pick_worth(among, rule)
    longest = max(row.n_ctx for row in fast)
    if chosen.n_ctx < longest:
        least = min(row.loss.percent for row in fast if row.n_ctx == longest)
        why += f"; at a context of {longest} tokens the lowest loss would be {least:.1f} %"
    return chosen, why


def _with_room(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the largest context, and those with half of it where the former all lose much."""
    longest = max(row.n_ctx for row in rows)
    roomy = [row for row in rows if row.n_ctx == longest]
    if min(row.loss.percent for row in roomy) > LOSSY:
        return [row for row in rows if row.n_ctx >= longest // 2]
    return roomy


def _pick_worth(rows: Sequence[Row], rule: Rule) -> tuple[Row, str]:
    """Weigh the decode rate against the loss."""
    worth = DOUBLED[rule.prefer]
    first, *others = sorted(rows, key=lambda row: -_score(row, worth))
    why = f"{rule.prefer}, {{}}{_among(rule)}"
    if not others:
        return (
            first,
            f"{rule.prefer}, the only quant {f'with at least {rule.min_tps:g} tok/s' if rule.min_tps else 'that fits'}",
        )
    better = [row for row in others if row.loss.percent < first.loss.percent]
    if better:
        return first, why.format(
            f"{_times(first, better[0])} of {better[0].type} for {_more(first, better[0])}"
        )
    return first, why.format(
        f"the lowest loss of the quants that fit; {others[0].type} has only {_times(others[0], first)} for {_more(others[0], first)}"
    )


def _pick_quality(rows: Sequence[Row], rule: Rule) -> tuple[Row, str]:
    """Take the least loss that is fluent, and never more loss than balanced."""
    floor = FLUENT if rule.min_tps is None else rule.min_tps
    balanced = max(rows, key=lambda row: _score(row, DOUBLED["balanced"]))
    fluent = [row for row in rows if row.decode >= floor and row.loss.percent <= balanced.loss.percent] or [
        balanced
    ]
    chosen = min(fluent, key=lambda row: (row.loss.percent, -row.decode))
    if chosen.decode < floor:
        return chosen, (
            f"quality, never more loss than balanced's choice; no such quant reaches {floor:g} tok/s, and this one decodes {chosen.decode:.1f}"
        )
    why = f"quality, the lowest loss with at least {floor:g} tok/s"
    better = [row for row in rows if row.loss.percent < chosen.loss.percent]
    if not better:
        return chosen, why
    nearest = min(better, key=lambda row: -row.loss.percent)
    return chosen, f"{why}; {nearest.type} has {nearest.decode:.1f}"


def _times(row: Row, rival: Row) -> str:
    ratio = row.decode / rival.decode
    return f"{ratio:.{1 if ratio >= 1.1 else 2}f}x the decode"


def _more(row: Row, rival: Row) -> str:
    return f"{row.loss.percent - rival.loss.percent:.1f} % more loss"


def _among(rule: Rule) -> str:
    return "" if rule.min_tps is None else f", among those with at least {rule.min_tps:g} tok/s"


def _score(row: Row, worth: float) -> float:
    return log2(row.decode) - row.loss.percent / worth


__all__ = ["FileChoice", "Row", "Rule", "choose", "chosen_of", "pick", "row_of"]
