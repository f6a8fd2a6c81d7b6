"""The section of docs/benchmarks.md on `serve`: many clients at once, and answers beside a long prompt."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.estimate import side_medians
from bench.page import Machines, Row, circumstances, findings_of, measured_numbers, promise_table, shown

UNITS = {
    "total": "tok/s",
    "written": "of them written",
    "whole": "whole answers",
    "wait": "wait, median, s",
    "late": "95th percentile / median",
    "to first": "to first token, median, s",
    "late to first": "the same, 95th percentile, s",
    "first": "to first token of a short request, s",
    "long": "of the long one, s",
    "prompt": "its tokens",
    "short requests": "short requests",
    "pause": "longest pause of the running answer, s",
    "meanwhile": "its tok/s meanwhile",
    "ms": "a short request of one client, ms",
    "processor ms": "processor time of the port for it, ms",
    "streams": "16 streams, tok/s",
    "processor us": "processor time of the port for a token of them, us",
}
STORIES = {
    "load": (
        "200 requests of 32 clients",
        "Prompts of about 50 tokens with a beginning of their own, answers of 8 to 40 tokens, streamed; each client asks again as soon as it is answered. "
        "Tokens are those of prompts and answers together.",
    ),
    "shared": (
        "The same behind a system prompt of 200 tokens",
        "All requests begin with the same 200 tokens, which are new to both. mixcli computes them once; a slot of `llama-server` keeps its own.",
    ),
    "beside": (
        "A long prompt beside a running answer",
        "While one answer is written, a prompt of 3,000 tokens comes, and every two seconds a short request. `llama-server` has four slots.",
    ),
    "alone": ("A long prompt and short requests", "The same without the running answer."),
    "gate": (
        "What the port costs",
        "The same requests through the port of `mixcli serve` and straight to the private socket of its model process, in turns: short answers of 2 tokens "
        "to one client, one after the other, and 16 tokens streamed to each of 16 clients, who ask the same. Differences and ratios are those of pairs.",
    ),
}


def serve_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what was measured of every promise."""
    for name, (title, _) in STORIES.items():
        if found := result["scenarios"].get(name):
            for one in findings_of(found):
                yield Row(f"serve: {title}", one, found["machine"])


def serve_section(result: Mapping[str, Any], machines: Machines) -> list[str]:
    """Return the section as lines."""
    lines = [
        "## serve with many clients",
        "",
        "`mixcli serve --for batch` on a loopback port, as it plans itself, against `llama-server` with 32 slots on a unix socket, both freshly started with the demo "
        "(8 experts of 135M, Q4_K_M). The clients share the machine with the server.",
        "",
    ]
    for name, (title, story) in STORIES.items():
        if found := result["scenarios"].get(name):
            lines += [f"### {title}", "", story, "", *_table(found, machines)]
    return lines


def _table(found: Mapping[str, Any], machines: Machines) -> list[str]:
    sides = side_medians(found["rounds"])
    lines = [
        circumstances(found, machines),
        "",
        f"| | {' | '.join(sides)} |",
        f"|---|{'--:|' * len(sides)}",
    ]
    for number in measured_numbers(found["rounds"]):
        cells = [shown(values[number]) if number in values else "" for values in sides.values()]
        lines.append(f"| {UNITS[number]} | {' | '.join(cells)} |")
    return [*lines, "", *promise_table(findings_of(found), machines.key(found["machine"]))]
