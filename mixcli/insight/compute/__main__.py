"""The child: `python -m mixcli.insight.compute` with an order on stdin; it writes lines of JSON to stdout."""

import os
import sys
from collections.abc import Callable
from typing import NoReturn

from mixcli.errors import DoesNotFit, MixcliError
from mixcli.insight.baseline_file import BaselineReader
from mixcli.insight.compute.experts import observe
from mixcli.insight.compute.importance import sum_up, tap_of
from mixcli.insight.compute.perplexity import evaluate
from mixcli.insight.importance import ImportanceSums
from mixcli.insight.orders import (
    BenchOrder,
    ChildLine,
    ExpertsOrder,
    ImatrixOrder,
    Order,
    PerplexityOrder,
    load_of,
    order_from_json,
)
from mixcli.llama.context import Context
from mixcli.llama.expert_choices import ExpertChoices
from mixcli.llama.loading import Loaded, load
from mixcli.llama.observers import NamedTensors, Tap
from mixcli.llama.worker_watch import COMPUTE, LOAD, WorkerWatch


def main() -> None:
    """Read the order, compute, write the result."""
    order = order_from_json(sys.stdin.read())
    watch = WorkerWatch(load_of(order)[1].placement.workers, _give_up)
    try:
        _carry_out(order, watch)
    except MixcliError as error:
        _give_up(error)
    except (OSError, RuntimeError) as error:
        from mixcli.system.os_errors import translated

        if refusal := translated(error):
            _give_up(refusal)
        raise
    except MemoryError:
        _give_up(
            DoesNotFit("not enough memory for the statistics; close other programs, or use a smaller model")
        )


def _carry_out(order: Order, watch: WorkerWatch) -> None:
    def report(done: float, total: float, stage: str) -> None:
        _tell(ChildLine(done, total, stage))

    def note(text: str) -> None:
        _tell(ChildLine(note=text))

    sums, choices = ImportanceSums(), ExpertChoices()
    baseline = _baseline(order)

    def on_progress(share: float) -> bool:
        report(share, 1, "loading")
        return watch.alive()

    with watch.waiting(LOAD):
        loaded = _load(order, _tap(order, sums, choices), on_progress)
    for text in loaded.notes:
        note(text)
    model, context = loaded.model, loaded.context
    with watch.waiting(COMPUTE):
        match order:
            case ImatrixOrder():
                result = sum_up(order, model, context, sums, report, note)
            case PerplexityOrder():
                result = evaluate(order, model, context, report, note, baseline)
            case ExpertsOrder():
                result = observe(order, model, context, choices, report, note).to_data()
            case BenchOrder():
                result = _measure(order, loaded, report)
    _tell(ChildLine(result=result))


def _baseline(order: Order) -> BaselineReader | None:
    """Open the baseline that an order compares with: an open file stays, where another process makes room in the cache during a long load."""
    if not isinstance(order, PerplexityOrder) or order.read_baseline is None:
        return None
    return BaselineReader(order.read_baseline)


def _tap(order: Order, sums: ImportanceSums, choices: ExpertChoices) -> Tap | None:
    """Return what sees the tensors that an order is about."""
    match order:
        case ImatrixOrder():
            return tap_of(order, sums)
        case ExpertsOrder():
            return NamedTensors(choices)
        case PerplexityOrder() | BenchOrder():
            return None


def _measure(
    order: BenchOrder, loaded: Loaded, report: Callable[[float, float, str], None]
) -> dict[str, object]:
    """Report the bandwidth of each device, then each sample when it is measured."""
    from mixcli.insight.compute.bench import samples
    from mixcli.llama.device_bandwidth import gpu_bandwidths
    from mixcli.system.hardware import memory_bandwidth

    report(0, 1, "measuring memory")
    rates = {**gpu_bandwidths(order.gpus), "host": memory_bandwidth()}
    _tell(ChildLine(result={"bandwidths": rates, "is_smaller": loaded.is_smaller}))
    for test, one in samples(order, loaded.model, loaded.context, report):
        _tell(
            ChildLine(result={"test": order.tests.index(test), "rate": float(one.rate), "others": one.others})
        )
    return {"done": True}


def _load(order: Order, tap: Tap | None, on_progress: Callable[[float], bool]) -> Loaded:
    """Load the model: for texts with cells of its own for each chunk, as llama.cpp's programs do, else as a host does."""
    (path, plan), is_host = load_of(order), isinstance(order, BenchOrder)
    smaller = (plan.smaller.placement, plan.smaller.expected) if plan.smaller else None
    return load(
        path,
        plan.placement,
        plan.expected,
        smaller,
        on_progress,
        lambda model, placement: Context(model, placement, kv_unified=is_host, tap=tap),
    )


def _tell(line: ChildLine) -> None:
    sys.stdout.write(line.to_json() + "\n")
    sys.stdout.flush()


def _give_up(error: MixcliError) -> NoReturn:
    sys.stderr.write(f"{error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)  # also while llama.cpp waits for a worker


if __name__ == "__main__":
    main()
