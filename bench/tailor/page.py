"""The section of docs/benchmarks.md about what a tailored file costs."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.estimate import Finding, Promise, findings, side_medians
from bench.page import Machines, Row, circumstances, promise_table

PLAIN, TAILORED = "mixcli convert", "mixcli tailor"
WALL, CPU = "wall, ", "CPU, "  # before the name of a stage
PROMISES = (
    Promise(
        "processor time, in terms of the plain pass",
        (TAILORED, "cpu_seconds"),
        (PLAIN, "cpu_seconds"),
        "at most",
        2.5,
    ),
)
WORDS = {
    f"{CPU}starting": "start, and reading the checkpoint's headers",
    f"{CPU}converting": "a Q8_0 file that reads the text",
    f"{CPU}computing": "the pass over the text: importance, and what errors cost",
    f"{CPU}measuring": "the table of errors",
    f"{CPU}planning": "the choice of types",
    f"{CPU}writing": "the file",
    "cpu_seconds": "all",
}

HEAD = """\
## Tailored files

A checkpoint with one layer of Mixtral 8x7B's shapes (3.4 GB, random weights) becomes a file of 4.2 bits a weight: \
`mixcli tailor --chunks {chunks} --no-verify` against `mixcli convert` to Q4_K_M. Seconds of processor time, which other processes disturb less.
"""


def tailor_findings(result: Mapping[str, Any]) -> list[Finding]:
    """Return what was measured of every promise."""
    return findings(PROMISES, result["cost"]["rounds"])


def tailor_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what was measured of every promise."""
    for one in tailor_findings(result):
        yield Row("Tailored files", one, result["cost"]["machine"])


def tailor_section(result: Mapping[str, Any], machines: Machines) -> list[str]:
    """Return the section as lines."""
    cost = result["cost"]
    sides = side_medians(cost["rounds"])
    lines = [
        *HEAD.format(chunks=cost["chunks"]).splitlines(),
        circumstances(cost, machines),
        "",
        f"| | `{PLAIN}` | `{TAILORED}` |",
        "|---|--:|--:|",
    ]
    for name, words in WORDS.items():
        cells = (f"{sides[side][name]:.1f}" if name in sides[side] else "" for side in (PLAIN, TAILORED))
        lines.append(f"| {words} | {' | '.join(cells)} |")
    return [*lines, "", *promise_table(tailor_findings(result), machines.key(cost["machine"]))]
