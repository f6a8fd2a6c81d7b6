"""The section of docs/benchmarks.md on `serve`: many clients at once, and answers beside a long prompt."""

from collections.abc import Callable, Mapping
from typing import Any

from bench.engine.page import circumstances, measured_numbers, shown

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
}


def serve_section(result: Mapping[str, Any], said: Callable[[Mapping[str, Any]], str]) -> list[str]:
    """Write the section; `said` puts a machine into words."""
    lines = [
        "## serve with many clients",
        "",
        "`mixcli serve --for batch` on a loopback port, as it plans itself, against `llama-server` with 32 slots on a unix socket, both freshly started with the demo "
        "(8 experts of 135M, Q4_K_M). The clients share the machine with the server.",
        "",
    ]
    for name, (title, story) in STORIES.items():
        if found := result["scenarios"].get(name):
            lines += [f"### {title}", "", story, "", *_table(found, said(found["machine"]))]
    return lines


def _table(found: Mapping[str, Any], machine: str) -> list[str]:
    sides = found["medians"]
    lines = [
        circumstances(found, machine),
        "",
        f"| | {' | '.join(sides)} |",
        f"|---|{'--:|' * len(sides)}",
    ]
    for number in measured_numbers(found):
        cells = [shown(values[number]) if number in values else "" for values in sides.values()]
        lines.append(f"| {UNITS[number]} | {' | '.join(cells)} |")
    lines += ["", "| promise | measured | promised | kept |", "|---|--:|--:|---|"]
    lines += [
        f"| {one['what']} | {one['value']:.2f} | {one['sign']} {one['limit']} | {'yes' if one['kept'] else 'no'} |"
        for one in found["promises"]
    ]
    return [*lines, ""]
