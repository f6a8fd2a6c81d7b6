"""mixcli bench: measure prefill and decode, and how far they are from what the hardware allows."""

import csv
import io
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    NAME_OR_PATH,
    common,
    forecast_option,
    json_option,
    model_argument,
    planning_options,
)
from mixcli.system.console import console
from mixcli.system.formatting import about_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixcli.insight.bench_record import BenchResult, BenchRun, BenchTest
    from mixcli.planning.load_options import LoadOptions

MAX_TOKENS, MAX_BATCH, MAX_REPEATS, MAX_NUMBERS = 1 << 20, 256, 1000, 32
NOTABLE = (
    0.1  # cores that other programs use in the median: from there on a warning says that rates are too low
)
COLUMNS = ("TEST", "DEPTH", "TEXTS", "TOK/S", "LOWEST", "HIGHEST", "LIMIT", "OF LIMIT")
CSV_COLUMNS = ("model", "test", "n_tokens", "depth", "texts", "median", "mean", "stddev", "lowest", "highest", "roof", "samples")  # fmt: skip


class _Numbers(click.ParamType):  # type: ignore[type-arg]
    """Whole numbers in a range, separated by commas."""

    name = "numbers"

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        numbers = tuple(int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 10)
        if len(numbers) < len(parts) or not all(self._least <= n <= self._most for n in numbers):
            self.fail(
                f"{str(value)!r:.60}; use whole numbers from {self._least} to {self._most:,}, separated by commas",
                param,
                ctx,
            )
        if len(numbers) > MAX_NUMBERS:
            self.fail(f"{len(numbers)} numbers; the limit is {MAX_NUMBERS}", param, ctx)
        return numbers


@click.command("bench", cls=CheckedCommand)
@model_argument
@click.option(
    "-p",
    "--prompt",
    "prompts",
    type=_Numbers(0, MAX_TOKENS),
    default="512",
    show_default=True,
    metavar="N,...",
    help="Prompt tokens to process; 0 measures no prefill.",
)
@click.option(
    "-n",
    "--tokens",
    type=_Numbers(0, MAX_TOKENS),
    default="128",
    show_default=True,
    metavar="N,...",
    help="Tokens to decode; 0 measures no decode.",
)
@click.option(
    "-d",
    "--depth",
    "depths",
    type=_Numbers(0, MAX_TOKENS),
    default="0",
    show_default=True,
    metavar="N,...",
    help="Tokens in the KV cache before each test.",
)
@click.option(
    "-b",
    "--batch",
    "batches",
    type=_Numbers(1, MAX_BATCH),
    default="1",
    show_default=True,
    metavar="N,...",
    help="Texts to decode in parallel.",
)
@click.option(
    "-r",
    "--repeat",
    "n_repeats",
    type=click.IntRange(1, MAX_REPEATS),
    default=5,
    show_default=True,
    metavar="N",
    help="Repetitions of each test.",
)
@click.option(
    "--against",
    metavar="RUN",
    type=NAME_OR_PATH,
    help="Compare with an earlier run: last, a file, or the beginning of a saved run's name.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@planning_options
@forecast_option
@json_option
@common
def command(
    model: str | None,
    prompts: tuple[int, ...],
    tokens: tuple[int, ...],
    depths: tuple[int, ...],
    batches: tuple[int, ...],
    n_repeats: int,
    against: str | None,
    as_csv: bool,
    load_options: "LoadOptions",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Measure prefill and decode of MODEL, with the plan that `mixcli run` would use.

    The tests are those of llama-bench. LIMIT is the rate that the devices in the plan allow, by their measured memory bandwidth and matrix
    multiplication rates. Each run is saved; Ctrl-C prints what was measured so far. Without MODEL, the default model is measured, or the only one that
    is installed.
    """
    from mixcli.insight.bench import Bench, BenchRequest
    from mixcli.insight.bench_record import earlier
    from mixcli.planning.launch import installed

    request = BenchRequest(prompts, tokens, depths, batches, n_repeats)
    tests = request.tests()  # refuses what cannot be measured
    if dry_run:
        _forecast(model, load_options, tests, n_repeats, as_json=as_json)
        return
    stored = installed(model, load_options)
    before = None if against is None else earlier(against, stored.label)
    bench = Bench(stored, request, load_options)
    try:
        with console.progress(f"measuring {stored.label}", is_still=True) as bar:
            bench.measure(bar)
    finally:
        if bench.run.results:  # also after Ctrl-C
            _finish(bench.run, before, as_json=as_json, as_csv=as_csv)


def _forecast(
    model: str | None,
    load_options: "LoadOptions",
    tests: "Sequence[BenchTest]",
    n_repeats: int,
    *,
    as_json: bool,
) -> None:
    """Print about how fast a model would be, and how long the tests would take."""
    from mixcli.insight.bench_forecast import forecast

    found = forecast(model, load_options, tests, n_repeats)
    rows = [
        (
            one.model,
            one.test.words,
            f"{one.rate:,.1f}",
            "" if one.roof is None else f"{one.roof:,.1f}",
            about_time(one.seconds),
        )
        for one in found
    ]
    console.result(
        [asdict(one) for one in found], ("MODEL", "TEST", "TOK/S", "LIMIT", "TIME"), rows, as_json=as_json
    )
    console.note(
        f"{about_time(sum(one.seconds for one in found))} after loading; rates and limits are estimated, not measured"
    )


def _finish(run: "BenchRun", before: "BenchRun | None", *, as_json: bool, as_csv: bool) -> None:
    """Keep a run and print it."""
    from mixcli.insight.bench_record import save

    _note(run, before)
    try:
        console.note(f"saved as {save(run).stem}")
    except OSError as error:
        from mixcli.system.os_errors import explain

        console.warn(f"this run cannot be saved: {explain(error)}")
    if as_csv:
        console.write(_csv(run))
    else:
        console.page(_data(run, before), lambda: _show(run, before), as_json=as_json)


def _note(run: "BenchRun", before: "BenchRun | None") -> None:
    rates = ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in run.bandwidths.items())
    console.note(f"{run.model} on {run.machine}; memory measured: {rates}")
    if run.others is not None and run.others >= NOTABLE:
        console.warn(
            f"other programs used {run.others:.1f} cores meanwhile, so the rates, and perhaps the limits, are too low; close them and rerun the command"
        )
    if any((one.share or 0) > 1 for one in run.results):
        console.note("a share above 100 % means that a part of the weights stays in the processor's caches")
    if before is not None:
        if before.n_bytes != run.n_bytes:
            console.note(f"the earlier run measured another file: {before.model}, {before.n_bytes:,} bytes")
        if before.placement != run.placement:
            console.note("the earlier run had another plan (threads, context or placement of tensors)")
        if before.machine != run.machine:
            console.note(f"the earlier run was on another machine: {before.machine}")


def _show(run: "BenchRun", before: "BenchRun | None") -> None:
    from mixcli.insight.bench_picture import drawn

    more = ("AGAINST", "95 % INTERVAL") if before else ()
    console.table((*COLUMNS, *more), [_cells(one, before) for one in run.results])
    if console.is_terminal(sys.stdout):
        console.line()
        for line in drawn(run, console.width(sys.stdout), before):
            console.line(line)


def _cells(one: "BenchResult", before: "BenchRun | None") -> tuple[str, ...]:
    cells: tuple[str, ...] = (
        f"{one.test.kind} {one.test.n_tokens}",
        f"{one.test.depth:,}",
        str(one.test.n_batch),
        *(f"{rate:,.2f}" for rate in (one.median, min(one.rates), max(one.rates))),
        "" if one.roof is None else f"{one.roof:,.1f}",
        "" if one.share is None else f"{100 * one.share:.0f} %",
    )
    return cells if before is None else (*cells, *_against(one, before))


def _against(one: "BenchResult", before: "BenchRun") -> tuple[str, str]:
    from mixcli.insight.bench_record import ratio_of

    other = next((each for each in before.results if each.test == one.test), None)
    if other is None:
        return "not measured", ""
    ratio = ratio_of(one.rates, other.rates)
    interval = "" if ratio.low is None else f"{ratio.low:.3f} to {ratio.high:.3f}"
    return f"{ratio.value:.3f} times", interval


def _data(run: "BenchRun", before: "BenchRun | None") -> dict[str, object]:
    from mixcli.insight.bench_record import ratio_of

    if before is None:
        return run.to_data()
    earlier = {one.test: one for one in before.results}
    ratios = [
        {**vars(one.test), **vars(ratio_of(one.rates, earlier[one.test].rates))}
        for one in run.results
        if one.test in earlier
    ]
    return {**run.to_data(), "against": {"at": before.at, "model": before.model, "ratios": ratios}}


def _csv(run: "BenchRun") -> str:
    from statistics import mean, stdev

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for one in run.results:
        spread = f"{stdev(one.rates):.4f}" if len(one.rates) > 1 else ""
        numbers = (f"{one.median:.4f}", f"{mean(one.rates):.4f}", spread, f"{min(one.rates):.4f}")
        roof = "" if one.roof is None else f"{one.roof:.4f}"
        samples = " ".join(f"{rate:.4f}" for rate in one.rates)
        test = (one.test.kind, one.test.n_tokens, one.test.depth, one.test.n_batch)
        writer.writerow((run.model, *test, *numbers, f"{max(one.rates):.4f}", roof, samples))
    return out.getvalue()
