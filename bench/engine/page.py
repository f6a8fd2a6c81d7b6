"""The section of docs/benchmarks.md on the engine: for each scenario what each side did, and what was promised."""

from collections.abc import Iterator, Mapping
from typing import Any

from bench.estimate import side_medians
from bench.page import Machines, Row, circumstances, findings_of, measured_numbers, promise_table, shown

# number: how it is said
UNITS = {
    "prefill": "prefill tok/s",
    "decode": "decode tok/s",
    "decode as planned": "decode as planned",
    "late decode": "late decode tok/s",
    "total": "tok/s",
    "texts": "texts/s",
    "prompt tokens": "prompt tokens",
    "turn 2": "turn 2, s",
    "turn 10": "turn 10, s",
    "resumed from disk": "resumed from disk, s",
    "computed again": "computed again, s",
    "alone": "alone, tok/s",
    "beside all": "beside one for every core",
    "copy": "copying, tok/s",
    "copy with drafts": "the same with drafts",
    "copy accepted": "drafted tokens that were right",
    "copy equal tokens": "equal tokens",
    "free": "free text",
    "free with drafts": "the same with drafts ",
    "constrained": "under a schema",
}
MODELS = {
    "demo": "the demo (8 experts of 135M, Q4_K_M)",
    "true-shape": "4 layers with the shapes of Mixtral 8x7B (Q4_K_M, 3.5 GiB)",
}
STORIES = {
    "single": (
        "One stream",
        "Decode of 128 tokens with llama.cpp's default sampling and prefill of 512, in process, against `llama-bench`, which samples "
        "nothing, and against `llama_cpp.Llama`, the bindings' high-level class. All of them use flash attention there. mixcli plans one reader "
        "on a processor without it: decode as planned is the same 128 tokens so, late decode is that of 64 tokens behind 1,536, where each "
        "side has its own default.",
    ),
    "batch": (
        "16 at a time",
        "Generations of 64 tokens from 20-token prompts, 16 in flight: in process against `llama-batched-bench`, which neither samples nor "
        "schedules, and over HTTP on unix sockets against `llama-server` with 16 slots. All repack weights or none does, whatever "
        "`llama-batched-bench` likes better.",
    ),
    "classify": (
        "Sorting short texts",
        "Messages of about 20 tokens behind a shared instruction of 200, five labels with probabilities. `llama-server` has a grammar, "
        "`cache_prompt`, and the best of 1, 4, 8 and 16 slots with and without repacking, found before; mixcli over HTTP with 32 in flight. "
        "The loop over `llama_cpp.Llama` has a grammar too and gives no probabilities.",
    ),
    "chat": (
        "A chat over ten turns",
        "Time to first token of equally long messages early and late in a chat, and of the eleventh after the host was stopped: with its "
        "state on disk, and without.",
    ),
    "crowded": (
        "Beside busy programs",
        "Decode rate over whole answers of 12 tokens over HTTP: alone, beside a program that keeps one core busy, and beside one for every "
        "core, each in a session of its own. Both have two threads; mixcli goes down to one where others want the cores.",
    ),
    "speculation": (
        "Prompt-lookup drafts",
        "The same requests at temperature 0 with `speculate` and without.",
    ),
    "schema": (
        "Output of a JSON schema",
        "Milliseconds of decode for a token, with a schema and without.",
    ),
    "soak": (
        "A thousand requests of all kinds",
        "Random lengths, labels, a regex, a schema, drafts; a fifth of the clients leaves early. Memory is what no file backs, after 250 "
        "requests and after 1,000 more.",
    ),
}


def engine_rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """Yield what was measured of every promise."""
    for name, (title, _) in STORIES.items():
        for model, found in result["scenarios"].get(name, {}).items():
            for one in findings_of(found):
                yield Row(f"{title}, {model}", one, found["machine"])


def engine_section(result: Mapping[str, Any], machines: Machines) -> list[str]:
    """Return the section as lines."""
    lines = [
        "## The engine against llama.cpp's own programs",
        "",
        "2 threads. Every side runs in processes of its own and is warmed up. llama.cpp's programs are built from the bindings' own source with the same flags.",
        "",
    ]
    for name, (title, story) in STORIES.items():
        if name not in result["scenarios"]:
            continue
        lines += [f"### {title}", "", story, ""]
        for model, found in result["scenarios"][name].items():
            lines += _table(MODELS[model], found, machines)
    return lines


def _table(model: str, found: Mapping[str, Any], machines: Machines) -> list[str]:
    numbers = measured_numbers(found["rounds"])
    lines = [
        f"On {model}. {circumstances(found, machines)}",
        "",
        f"| | {' | '.join(UNITS.get(number, number).strip() for number in numbers)} | others |",
        f"|---|{'--:|' * (len(numbers) + 1)}",
    ]
    for side, values in side_medians(found["rounds"]).items():
        cells = [shown(values[number]) if number in values else "" for number in numbers]
        lines.append(f"| {side} | {' | '.join(cells)} | {values['others']:.0%} |")
    return [*lines, "", *promise_table(findings_of(found), machines.key(found["machine"]))]
