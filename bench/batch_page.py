"""The section of docs/benchmarks.md on `run` and `batch` as whole processes."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.estimate import Finding, most_others, side_medians
from bench.page import Machines, Row, promise_table, shown

Result = Mapping[str, Any]

LABELS = "texts a second, in terms of llama-server"
OVERHEAD = "what a process of `mixcli run` adds to the request, ms"


def overhead_finding(result: Result) -> Finding | None:
    """Return what a process costs; None where that was not measured."""
    if not (found := result.get("overhead")):
        return None
    if "promise" in found:
        return Finding.from_data(found["promise"])
    older = {"what": OVERHEAD, "value": found["overhead"], "sign": "at most", "limit": found["limit"]}
    return Finding.from_data(older, n_rounds=21)


def label_findings(result: Result) -> Iterator[tuple[str, Finding]]:
    """Yield each model with what was measured of its promise."""
    for model, found in result["labels"].items():
        older = {
            "what": LABELS,
            "sign": "at least",
            "others": most_others({"llama-server": found["rounds"]["llama-server"]}),
            **found,
        }
        yield model, Finding.from_data(found.get("promise", older))


def batch_rows(result: Result) -> Iterator[Row]:
    """Yield what was measured of every promise."""
    if over := overhead_finding(result):
        yield Row("A process of run", over, result["overhead"]["machine"])
    for model, found in label_findings(result):
        yield Row(f"mixcli batch, {model}", found, result["labels"][model]["machine"])


def batch_section(result: Result, machines: Machines) -> list[str]:
    """Return the section as lines: labels by `mixcli batch` against llama-server, and what a process of `mixcli run` costs."""
    lines = ["## run and batch as processes", ""]
    if over := overhead_finding(result):
        found = result["overhead"]
        lines += [
            f"`mixcli run --choice yes,no` on a warm host, as a whole process: {found['run']:.0f} ms, of which the bare request to the same host "
            f"takes {found['request']:.0f} ms; both in turns, and the difference is taken in each pair. Python alone starts and ends in {found['python']:.0f} ms.",
            "",
            *promise_table([over], machines.key(found["machine"])),
        ]
    if result["labels"]:
        lines += [
            "Short texts behind a shared instruction of 200 tokens, five labels: `mixcli batch` from start to end (its host warm), with "
            "probabilities, journal and output, against `llama-server` (warm, grammar, `cache_prompt`) with the best of 1, 4, 8 and 16 "
            "connections, repacking or not, found before; 2 threads.",
            "",
        ]
    for model, promise in label_findings(result):
        found = result["labels"][model]
        sides = [f"{side} {shown(values['texts'])}" for side, values in side_medians(found["rounds"]).items()]
        lines += [
            f"On the {model} {found['n_texts']:,} texts ({found['n_peer']:,} for llama-server), texts/s: {', '.join(sides)}.",
            "",
            *promise_table([promise], machines.key(found["machine"])),
        ]
    return lines
