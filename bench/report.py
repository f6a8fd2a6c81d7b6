"""docs/benchmarks.md, made of the results under bench/results/.

    python -m bench.report

Each result is a JSON file with the machine and the date in it; each section below says in words what the numbers are.
"""

import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from math import nan
from pathlib import Path
from typing import Any

from bench.batch_page import batch_rows, batch_section
from bench.engine.page import engine_rows, engine_section
from bench.estimate import Estimate, Finding, Sign
from bench.gpu.table import promises, table
from bench.limits_page import limits_section
from bench.page import Machines, Row, summary
from bench.quantize_page import kernels_section, quantize_rows, quantize_section
from bench.serve_page import serve_rows, serve_section
from bench.tailor.page import tailor_rows, tailor_section

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

Result = Mapping[str, Any]

HEAD = """\
# Benchmarks

This page is generated from `bench/results/` by `python -m bench.report`; `bench/README.md` says how each result is made.

Sides take turns (A B B A), all of them warmed up, and a pass that other programs disturb is measured again. *Measured* is the median of the pairs' ratios, or of
a number alone. *Interval* is a 95 % interval by bootstrap over the pairs; that of two to five pairs is only their *range*. *No interval*: an older result, or one
that was measured once; it says less than the others.
A promise is **kept** when the worse end of its interval keeps it, **open** when the interval holds the limit, else **not kept**, and **not measured** when there is no
figure. Pairs during which other programs had more than 10 % of the machine are left out. Where that is more than half of them, the row is *disturbed* and its
promise open.
*Demo* is the demo model, *true-shape* four layers with the shapes of Mixtral 8x7B.
*Others* is the largest share of the machine that other programs had during the pairs that count, *on* the machine, kernel and versions in the table after the promises.

## All promises
"""


def write_result(path: Path, result: Result) -> None:
    """Keep a result, with where and when it was written; parts that were measured one by one say it themselves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**result, "machine": machine()}, indent=1) + "\n", "utf-8")


def machine() -> dict[str, str | int]:
    """Return what a result depends on: processor, memory, system, versions."""
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    packages = {}
    for name in ("mixcli", "llama-cpp-python", "numpy", "numba"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **packages,
    }


GPU_HEAD = """\
## Plans on a GPU

Mixtral 8x7B with all its layers (true shapes, random weights and a random text, so that all experts are used), planned for a card of 24, 16 or 12 GiB and run \
on a larger one: what the plan leaves unused stays unused. All others have llama.cpp's own defaults: micro-batches of 512, a mapped file. A plan takes the host's \
experts into pinned memory instead, from which the card fetches them many times as fast for a prompt; that is most of \
its gain in prefill (at 24 GiB both use micro-batches of 512, with as many experts on the card). *driver* is what the driver saw in use: the ledger's bytes and its own context, 0.7 GiB there, where the budgets had set aside 0.5.

"""


@dataclass(frozen=True)
class Section:
    """How one result is shown: its promises for the table of all, and its lines."""

    rows: Callable[[Result], Iterator[Row]]
    lines: Callable[[Result, Machines], list[str]]


def _gpu_rows(result: Result) -> Iterator[Row]:
    """Yield the promises of plans, each of which is held against the worst placement; a placement is measured once."""
    card = {"card": result["card"]["name"], "date": result["measured"]}
    for one in promises(dict(result)):
        worst = Estimate(nan if one.worst is None else one.worst, None, None, 1)
        sign: Sign = "at most" if one.at_most else "at least"
        yield Row("Plans on a GPU", Finding(one.what, worst, sign, one.limit), card)


def _gpu_lines(result: Result, _: Machines) -> list[str]:
    return [*GPU_HEAD.splitlines(), *table(dict(result)), ""]


def _no_rows(_: Result) -> Iterator[Row]:
    return iter(())


SECTIONS: dict[str, Section] = {
    "engine.json": Section(engine_rows, engine_section),
    "serve.json": Section(serve_rows, serve_section),
    "batch.json": Section(batch_rows, batch_section),
    "quantize.json": Section(quantize_rows, quantize_section),
    "limits.json": Section(_no_rows, limits_section),
    "kernels.json": Section(_no_rows, kernels_section),
    "tailor.json": Section(tailor_rows, tailor_section),
    "gpu.json": Section(_gpu_rows, _gpu_lines),
}


def page() -> str:
    """All of docs/benchmarks.md: a table of all promises, then the sections whose results are there."""
    machines, rows, lines = Machines(), list[Row](), list[str]()
    for name, section in SECTIONS.items():
        if (RESULTS / name).is_file():
            result = json.loads((RESULTS / name).read_text("utf-8"))
            rows += section.rows(result)
            lines += section.lines(result, machines)
    top = summary(rows, machines)
    return "\n".join([HEAD, *top, *machines.legend(), *lines])


def main() -> None:
    PAGE.write_text(page(), "utf-8")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
