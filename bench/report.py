"""docs/benchmarks.md, made of the results under bench/results/.

    python -m bench.report

Each result is a JSON file with the machine and the date in it; each section below says in words what the numbers are.
"""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine.page import engine_section
from bench.gpu.table import table
from bench.serve_page import serve_section

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"

Result = Mapping[str, Any]

HEAD = """\
# Benchmarks

This page is generated from `bench/results/` by `python -m bench.report`; `bench/README.md` says how each result is made.
"""

ROWS = {
    "one_pass": "`mixcli convert`",
    "without_fast": "`mixcli convert` without the extra `fast`",
    "first_time": "`mixcli convert`, the first time on a machine: compiles its kernels",
    "to_bf16": "llama.cpp, step 1: convert_hf_to_gguf.py to BF16",
    "llama_quantize": "llama.cpp, step 2: llama-quantize",
    "two_steps": "llama.cpp, both steps",
    "from_bf16": "`mixcli quantize` of llama.cpp's BF16 file",
}
QUIET = 0.1  # of the machine for others, at most
QUANTIZES = {"one_pass", "without_fast", "first_time", "llama_quantize", "from_bf16"}


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


def quantize_table(result: Result) -> list[str]:
    """The table of bench/quantize.py, as Markdown: medians of all rounds."""
    lines = [
        "| | wall s | CPU s | M weights/s | resident MiB | private MiB | extra disk MB | read MB | others |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row, label in ROWS.items():
        costs = two_steps(result) if row == "two_steps" else result["rows"][row]
        seconds = [cost["seconds"] for cost in costs]
        spread = f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(costs) > 1 else ""
        rate = f"{result['weights'] / median(seconds) / 1e6:.1f}" if row in QUANTIZES else ""
        lines.append(
            f"| {label} | {median(seconds):.1f}{spread} | {_median(costs, 'cpu_seconds'):.1f} | {rate} "
            f"| {_median(costs, 'bytes_resident') / 2**20:,.0f} | {_median(costs, 'bytes_private') / 2**20:,.0f} "
            f"| {_median(costs, 'bytes_disk') / 1e6:,.0f} | {_median(costs, 'bytes_read') / 1e6:,.0f} "
            f"| {_median(costs, 'others'):.0%} |"
        )
    return lines


def two_steps(result: Result) -> list[dict[str, float]]:
    """What the two steps of llama.cpp take together, round by round; the BF16 file lies there while the second runs."""
    peaks = ("bytes_resident", "bytes_private", "others")
    return [
        {
            name: max(first[name], second[name]) if name in peaks else first[name] + second[name]
            for name in first
        }
        for first, second in zip(result["rows"]["to_bf16"], result["rows"]["llama_quantize"], strict=True)
    ]


def quantize_ratios(result: Result) -> list[str]:
    """What was promised, and what was measured."""
    rows = result["rows"]
    both, theirs = _median(two_steps(result), "seconds"), _median(rows["llama_quantize"], "seconds")
    one, slow = _median(rows["one_pass"], "seconds"), _median(rows["without_fast"], "seconds")
    resident = max(cost["bytes_resident"] for row in ("one_pass", "without_fast") for cost in rows[row])
    differing = sum(map(len, result["differing_tensors"].values()))
    promises = (
        ("wall time of one pass, in terms of both steps", one / both, "{:.2f}x", "at most", 0.35),
        ("the same without `fast`", slow / both, "{:.2f}x", "at most", 0.65),
        ("weights/s, in terms of llama-quantize", theirs / one, "{:.2f}x", "at least", 2.5),
        ("peak resident set, nothing subtracted", resident / 2**20, "{:,.0f} MiB", "at most", 2048),
        ("tensors that differ from llama-quantize's in any byte", differing, "{}", "at most", 0),
    )
    lines = ["| promise | measured | promised | kept |", "|---|--:|--:|---|"]
    for what, value, form, sign, limit in promises:
        kept = value >= limit if sign == "at least" else value <= limit
        lines.append(
            f"| {what} | {form.format(value)} | {sign} {form.format(limit)} | {'yes' if kept else 'no'} |"
        )
    return lines


def _quantize_section(result: Result) -> list[str]:
    others = max(cost["others"] for costs in result["rows"].values() for cost in costs)
    noise = (
        ""
        if others < QUIET
        else " **Not a quiet machine**: what others had slows the routes that use every core more than llama.cpp's converter, which uses one."
    )
    one, slow = (_median(result["rows"][row], "cpu_seconds") for row in ("one_pass", "without_fast"))
    both = _median(two_steps(result), "cpu_seconds")
    rounds = len(result["rows"]["one_pass"])
    often = f"{rounds} times, in turns, and the median counts" if rounds > 1 else "once"
    return [
        "## Quantizing: one pass against two steps",
        "",
        f"A checkpoint with the layer shapes of Mixtral 8x7B ({result['layers']} layer{'s' * (result['layers'] > 1)}, "
        f"{result['weights'] / 1e6:,.0f} million weights in BF16) becomes {result['output_type']} on {result['threads']} threads; "
        f"{_machine(result['machine'])}. Every route runs in processes of its own, {often}. "
        "The source was read once before each, so that it is in the page cache, and all writes were waited for. "
        f"mixcli brings its result to the disk before it is done (fsync), the others leave that to the system.{noise}",
        "",
        *quantize_table(result),
        "",
        "*resident* is VmHWM, the most pages in memory at a time, pages of mapped files with them: mixcli reads its source in "
        "pieces and maps none of it, llama-quantize maps its source. *private* is the largest RssAnon + RssShmem that was seen, what no file "
        "backs. *extra disk* is the most that lay there at a time beyond the checkpoint, *read* what came from the disk and not from the "
        "page cache, *others* the share of the machine that other processes had. *M weights/s* is all weights over the whole wall time of the process, start and end included.",
        "",
        *quantize_ratios(result),
        "",
        f"In processor time, which other processes disturb less, one pass takes {one / both:.2f}x of both steps, {slow / both:.2f}x without `fast`; "
        "llama.cpp's converter works on one core.",
        "",
    ]


def _kernels_section(result: Result) -> list[str]:
    lines = [
        "## Quantizing: the compiled quantizers alone",
        "",
        f"Million weights a second in memory, against `ggml_quantize_chunk`, same bytes; {_machine(result['machine'])}.",
        "",
        "| type | threads | llama.cpp | mixcli | faster |",
        "|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['type']} | {row['threads']} | {row['ggml']:.1f} | {row['mixcli']:.1f} | {row['ratio']:.1f}x |"
        for row in result["rows"]
    ]
    return [*lines, ""]


def _engine_section(result: Result) -> list[str]:
    return engine_section(result, _machine)


def _serve_section(result: Result) -> list[str]:
    return serve_section(result, _machine)


def _batch_section(result: Result) -> list[str]:
    """Labels by `mixcli batch` against llama-server, and what a process of `mixcli run` costs."""
    lines = ["## run and batch as processes", ""]
    if over := result.get("overhead"):
        lines += [
            f"`mixcli run --choice yes,no` on a warm host, as a whole process: {over['run']:.0f} ms, of which the bare request to the same host "
            f"takes {over['request']:.0f} ms; the difference is **{over['overhead']:.0f} ms** (promised: at most {over['limit']:.0f} ms). "
            f"Python alone starts and ends in {over['python']:.0f} ms. Medians of pairs in turns; {_machine(over['machine'])}.",
            "",
        ]
    if result["labels"]:
        lines += [
            "Short texts behind a shared instruction of 200 tokens, five labels: `mixcli batch` from start to end (its host warm), with "
            "probabilities, journal and output, against `llama-server` (warm, grammar, `cache_prompt`) with the best of 1, 4, 8 and 16 "
            "connections, repacking or not, found before; 2 threads.",
            "",
            "| model | texts | mixcli batch, texts/s | llama-server, texts/s | ratio | promised | others beside llama-server | measured on |",
            "|---|--:|--:|--:|--:|--:|--:|---|",
        ]
    for model, found in result["labels"].items():
        ours, theirs = (found["rounds"][side] for side in ("mixcli batch", "llama-server"))
        others = max(one["others"] for one in theirs)  # while ours runs its own host is among the others
        lines.append(
            f"| {model} | {found['n_texts']:,} (llama-server {found['n_peer']:,}) | {_median(ours, 'texts'):.1f} | {_median(theirs, 'texts'):.2f} "
            f"| {found['ratio']:.2f}x | at least {found['limit']}x | {others:.0%} | {_machine(found['machine'])} |"
        )
    return [*lines, ""]


def _gpu_section(result: Result) -> list[str]:
    return [*GPU_HEAD.splitlines(), *table(result), ""]


GPU_HEAD = """\
## Plans on a GPU

Mixtral 8x7B with all its layers (true shapes, random weights and a random text, so that all experts are used), planned for a card of 24, 16 or 12 GiB and run \
on a larger one: what the plan leaves unused stays unused. All others have llama.cpp's own defaults: micro-batches of 512, a mapped file. A plan takes the host's \
experts into pinned memory instead, from which the card fetches them many times as fast for a prompt; that is most of \
its gain in prefill (at 24 GiB both use micro-batches of 512, with as many experts on the card). *driver* is what the driver saw in use: the ledger's bytes and its own context, 0.7 GiB there, where the budgets had set aside 0.5.

"""

SECTIONS: dict[str, Callable[[Result], list[str]]] = {
    "engine.json": _engine_section,
    "serve.json": _serve_section,
    "batch.json": _batch_section,
    "quantize.json": _quantize_section,
    "kernels.json": _kernels_section,
    "gpu.json": _gpu_section,
}


def page() -> str:
    """All of docs/benchmarks.md: the sections whose results are there."""
    lines = [HEAD]
    for name, section in SECTIONS.items():
        if (RESULTS / name).is_file():
            lines += section(json.loads((RESULTS / name).read_text("utf-8")))
    return "\n".join(lines)


def main() -> None:
    PAGE.write_text(page(), "utf-8")


def _machine(facts: Mapping[str, str | int]) -> str:
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, llama-cpp-python {facts['llama-cpp-python']}, "
        f"numba {facts['numba']}, {facts['date']}"
    )


def _median(costs: Sequence[Mapping[str, float]], name: str) -> float:
    return median(cost[name] for cost in costs)


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    main()
