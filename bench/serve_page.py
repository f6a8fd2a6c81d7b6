"""The section of docs/benchmarks.md on `serve`: many clients at once, and answers beside a long prompt."""

from collections.abc import Callable, Mapping
from typing import Any

QUIET = 0.1  # of the machine for others, at most

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
        "All requests begin with the same 200 tokens, which nobody has asked before. mixcli computes them once; a slot of `llama-server` keeps its own.",
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
    numbers = dict.fromkeys(number for side in sides.values() for number in side if number != "others")
    n_rounds = max(map(len, found["rounds"].values()))
    others = max(numbers["others"] for side in found["rounds"].values() for numbers in side)
    noise = "" if others < QUIET else f" **Not a quiet machine**: others had up to {others:.0%} of it."
    lines = [
        f"{n_rounds} round{'s' * (n_rounds > 1)}; {machine}.{noise}",
        "",
        f"| | {' | '.join(sides)} |",
        f"|---|{'--:|' * len(sides)}",
    ]
    for number in numbers:
        cells = [_number(values[number]) if number in values else "" for values in sides.values()]
        lines.append(f"| {UNITS[number]} | {' | '.join(cells)} |")
    lines += ["", "| promise | measured | promised | kept |", "|---|--:|--:|---|"]
    lines += [
        f"| {one['what']} | {one['value']:.2f} | {one['sign']} {one['limit']} | {'yes' if one['kept'] else 'no'} |"
        for one in found["promises"]
    ]
    return [*lines, ""]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
