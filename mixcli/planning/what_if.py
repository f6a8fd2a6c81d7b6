"""Compare a plan with those of other hardware (--if): what each gains, or why it gains nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress

from mixcli.errors import UsageError
from mixcli.planning.cpu_rates import is_off
from mixcli.planning.load_options import LoadOptions
from mixcli.planning.machines import machine_of
from mixcli.planning.other_family import with_measured_shape
from mixcli.planning.report import Subject, on_gpus
from mixcli.planning.upgrade_options import Upgrade, read_upgrade
from mixcli.system.hardware import known_bandwidth, measured_bandwidth
from profiles.machine import Machine
from profiles.memory import GIB
from profiles.planner import Plan, plan_if_it_fits
from profiles.quant_choice import chosen_of
from profiles.shape import ModelShape
from profiles.upgrades import LITTLE, Bound, Bounds, bounds

BAR = 10  # characters of the fastest decode
COLUMNS = ("if", "quant", "context", "on GPUs", "in RAM", "loss", "decode tok/s", "", "prefill tok/s")
TODAY = "today"


@dataclass(frozen=True)
class Case:
    """A plan on today's machine or a changed one; without a plan nothing fits. `loss` is in percent of perplexity, None where no file was chosen.

    `assumed` says what the change was taken for, `bounds` what binds the plan's speed.
    """

    what: str
    quant: str
    plan: Plan | None
    loss: float | None
    assumed: tuple[str, ...]
    bounds: Bounds | None


@dataclass(frozen=True)
class HardwareComparison:
    """Today's case, and one for each --if."""

    today: Case
    others: tuple[Case, ...]

    def table(self) -> list[tuple[str, ...]]:
        """Return the rows of the table, its header first and then today's; columns that have nothing to say are left out."""
        cases = (self.today, *self.others)
        most = max(map(_decode, cases))
        rows = [_cells(case, self.today, most) for case in cases]
        said = [any(cells) for cells in zip(*rows, strict=True)]
        return [tuple(compress(cells, said)) for cells in (COLUMNS, *rows)]

    def notes(self) -> Iterator[str]:
        """Yield what was assumed, what binds today's speed, and which cases gain nothing, in words."""
        yield from dict.fromkeys(words for case in self.others for words in case.assumed)
        if self.today.bounds is not None:
            yield f"today {_in_words(self.today.bounds)}"
        for case in self.others:
            if gains_nothing(self.today, case):
                why = "it does not fit either" if case.bounds is None else _in_words(case.bounds)
                yield f"{case.what} gains nothing: {why}"

    def to_data(self) -> list[dict[str, object]]:
        """Return the cases as --json prints them: rates in tok/s, sizes in bytes, today's first."""
        return [_data(case, self.today) for case in (self.today, *self.others)]


def prepared(texts: Sequence[str], load_options: LoadOptions) -> tuple[Upgrade, ...]:
    """Parse what stands after --if, and measure the bandwidth of this machine's memory once where a change needs it.

    Raises UsageError for an invalid change, and for a worker that a profile cannot have.
    """
    upgrades = tuple(map(read_upgrade, texts))
    if load_options.profile not in (None, "auto"):
        if real := next((one.worker for one in upgrades if one.worker), None):
            raise UsageError(
                f"--if worker={real} has no effect with --profile; use a hypothetical one, such as worker=24GiB@10GbE"
            )
    elif upgrades and known_bandwidth() is None and not is_off():
        measured_bandwidth()
    return upgrades


def compare(
    subject: Subject,
    found: Plan | None,
    machine: Machine,
    load_options: LoadOptions,
    upgrades: Sequence[Upgrade],
) -> HardwareComparison:
    """Plan the subject on every changed machine: the same file, or the file that is then chosen where one was chosen today.

    `found` is today's plan, None where nothing fits. Raises UsageError for a change that the machine cannot have.
    """
    today = _today(subject, found, machine)
    return HardwareComparison(today, tuple(_changed(subject, machine, load_options, one) for one in upgrades))


def gains_nothing(today: Case, case: Case) -> bool:
    """Return whether a case is the same file at the same context, and neither of its rates grows by more than a few percent."""
    if today.plan is None or case.plan is None:
        return today.plan is None and case.plan is None
    if case.plan.n_ctx > today.plan.n_ctx or _loss_falls(today, case):
        return False
    return all(gain is not None and gain <= LITTLE for gain in _gains(today, case))


def _changed(subject: Subject, machine: Machine, load_options: LoadOptions, upgrade: Upgrade) -> Case:
    if upgrade.worker:
        machine = machine_of(
            load_options.profile, load_options.vram, load_options.ram, (*load_options.workers, upgrade.worker)
        )
    changed, assumed = upgrade.apply(machine)
    if load_options.vram is not None:  # a limit of each GPU holds for new ones too
        gpus = (replace(gpu, bytes_free=min(gpu.bytes_free, load_options.vram)) for gpu in changed.gpus)
        changed = replace(changed, gpus=tuple(gpus))
    request, planned = load_options.request, subject.planned
    if planned is None:
        shape = with_measured_shape(subject, changed, load_options).shape
        found = plan_if_it_fits(shape, changed, request)
        return _case(upgrade.text, _file_type(subject), shape, found, changed, assumed)
    row = chosen_of({row.type: row.shape for row in planned.rows}, changed, request, planned.rule)
    if row is None:
        return Case(upgrade.text, "", None, None, assumed, None)
    return _case(upgrade.text, row.type, row.shape, row.plan, changed, assumed, row.loss.percent)


def _today(subject: Subject, found: Plan | None, machine: Machine) -> Case:
    row = subject.planned.chosen if subject.planned else None
    file_type, loss = (row.type, row.loss.percent) if row else (_file_type(subject), None)
    return _case(TODAY, file_type, subject.shape, found, machine, (), loss)


def _case(
    what: str,
    quant: str,
    shape: ModelShape,
    found: Plan | None,
    machine: Machine,
    assumed: tuple[str, ...],
    loss: float | None = None,
) -> Case:
    bound = None if found is None else _bounds(shape, machine, found)
    return Case(what, quant if found else "", found, loss, assumed, bound)


def _file_type(subject: Subject) -> str:
    """Return the type that a label name:TYPE ends with; nothing for a path."""
    return "" if subject.label.endswith(".gguf") else subject.label.rpartition(":")[2]


def _bounds(shape: ModelShape, machine: Machine, found: Plan) -> Bounds:
    return bounds(shape, machine, found.placement, found.layout, max(0, -found.ledger[-1].left))


def _loss_falls(today: Case, case: Case) -> bool:
    return today.loss is not None and case.loss is not None and case.loss < today.loss


def _decode(case: Case) -> float:
    return case.plan.estimate.middle(case.plan.estimate.decode) if case.plan else 0.0


def _gains(today: Case, case: Case) -> tuple[float | None, float | None]:
    """Return how many times today's decode and prefill a case has; None where one of the two does not fit."""
    if today.plan is None or case.plan is None:
        return None, None
    now, then = today.plan.estimate, case.plan.estimate
    decode = then.middle(then.decode) / now.middle(now.decode)
    return decode, then.middle(then.prefill) / now.middle(now.prefill)


def _cells(case: Case, today: Case, most: float) -> tuple[str, ...]:
    if case.plan is None:
        return (case.what, *[""] * 5, "does not fit", "", "")
    rates = case.plan.estimate
    gains = (None, None) if case is today else _gains(today, case)

    def shown(rate: float, gain: float | None) -> str:
        return rates.shown(rate) + (f" ({gain:.2f}x)" if gain is not None else "")

    *gpus, host = case.plan.ledger
    return (
        case.what,
        case.quant,
        str(case.plan.n_ctx),
        f"{sum(account.weights for account in gpus) / GIB:.1f} GiB",
        f"{host.weights / GIB:.1f} GiB",
        "" if case.loss is None else f"{case.loss:.1f} %",
        shown(rates.decode, gains[0]),
        "█" * max(1, round(_decode(case) / most * BAR)),
        shown(rates.prefill, gains[1]),
    )


def _in_words(found: Bounds) -> str:
    """Return what binds decode and prefill; with twice of it each would be so many times as fast."""

    def words(bound: Bound) -> str:
        if bound.by is None:
            return "no single limit"
        return f"{bound.by} (twice as much: {bound.gain:.2g}x)"

    return f"decode is bound by {words(found.decode)}, prefill by {words(found.prefill)}"


def _data(case: Case, today: Case) -> dict[str, object]:
    data: dict[str, object] = {
        "what": case.what,
        "fits": case.plan is not None,
        "assumed": list(case.assumed),
    }
    if case.plan is None:
        return data
    one, gains = case.plan, _gains(today, case)
    *gpus, host = one.ledger
    return data | {
        "quant": case.quant,
        "n_ctx": one.n_ctx,
        "decode": one.estimate.decode,
        "prefill": one.estimate.prefill,
        "low": one.estimate.low,
        "high": one.estimate.high,
        "loss": case.loss,
        "decode_gain": gains[0],
        "prefill_gain": gains[1],
        "gains_nothing": case is not today and gains_nothing(today, case),
        "bounds": None if case.bounds is None else asdict(case.bounds),
        "bytes_on_gpus": sum(account.weights for account in gpus),
        "bytes_experts_on_gpus": on_gpus(one),
        "bytes_in_memory": host.weights,
        "ledger": [{**asdict(account), "need": account.need, "left": account.left} for account in one.ledger],
    }


__all__ = ["COLUMNS", "Case", "HardwareComparison", "compare", "gains_nothing", "prepared"]
