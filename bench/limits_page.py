"""The section of docs/benchmarks.md on how near one pass comes to the limits of disk, memory and processors."""

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.page import Machines

Result = Mapping[str, Any]


def limits_table(result: Result) -> list[str]:
    """The table of bench/limits.py, as Markdown: medians of all passes, and the share of the limit that one pass reaches."""
    lines = [
        "| to | one pass, s | disk: write, s | memory: read, s | processors: quantize, s | limit, s | set by | reached | others |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|",
    ]
    for mix in result["mixes"]:
        convert, write, read, quantize = (
            median(mix["seconds"][name]) for name in ("convert", "write", "read", "quantize")
        )
        limit, by = max((write, "the disk"), (read + quantize, "memory" if read > quantize else "arithmetic"))
        lines.append(
            f"| {mix['mix']} | {convert:.1f} | {write:.1f} | {read:.1f} | {quantize:.1f} | {limit:.1f} | {by} "
            f"| {limit / convert:.2f}x | {mix['others']:.0%} |"
        )
    return lines


def limits_section(result: Result, machines: Machines) -> list[str]:
    """Return the section as lines; it promises nothing."""
    n = len(result["mixes"][0]["seconds"]["convert"])
    return [
        "## Quantizing: one pass and the machine's limits",
        "",
        f"`mixcli convert` of a checkpoint with the layer shapes of Mixtral 8x7B ({result['weights'] / 1e6:,.0f} million weights in BF16) on "
        f"{result['threads']} threads of machine {machines.key(result['machine'])}, in turns with parts of it alone: writing as many bytes as the result has "
        "and waiting for the disk (fsync), reading the checkpoint out of the page cache, and quantizing as many weights in memory. "
        f"Medians of {n} rounds.",
        "",
        *limits_table(result),
        "",
        "The disk writes while the processors work, but they read and quantize one after the other: the limit is the larger of the two. "
        "*Reached* is the limit's share of the time that one pass takes from start to end.",
        "",
    ]
