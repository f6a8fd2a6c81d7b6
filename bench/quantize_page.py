"""The sections of docs/benchmarks.md on quantizing: the routes to Q4_K_M, and the compiled quantizers alone."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from bench.estimate import MIN_PAIRS, QUIET, Estimate, Finding, Numbers, Promise, findings
from bench.page import Machines, Row, promise_table

Result = Mapping[str, Any]

ROWS = {
    "one_pass": "`mixcli convert`",
    "without_fast": "`mixcli convert` without the extra `fast`",
    "first_time": "`mixcli convert`, the first time on a machine: compiles its kernels",
    "to_bf16": "llama.cpp, step 1: convert_hf_to_gguf.py to BF16",
    "llama_quantize": "llama.cpp, step 2: llama-quantize",
    "two_steps": "llama.cpp, both steps",
    "from_bf16": "`mixcli quantize` of llama.cpp's BF16 file",
}
QUANTIZES = {"one_pass", "without_fast", "first_time", "llama_quantize", "from_bf16"}
TITLE = "Quantizing: one pass against two steps"
PROMISES = (
    Promise(
        "wall time of one pass, in terms of both steps",
        ("one_pass", "seconds"),
        ("two_steps", "seconds"),
        "at most",
        0.35,
    ),
    Promise(
        "the same without `fast`", ("without_fast", "seconds"), ("two_steps", "seconds"), "at most", 0.65
    ),
    Promise(
        "weights/s, in terms of llama-quantize",
        ("llama_quantize", "seconds"),
        ("one_pass", "seconds"),
        "at least",
        2.5,
    ),
)
MAX_RESIDENT = 2048  # MiB


def two_steps(result: Result) -> list[Numbers]:
    """What the two steps of llama.cpp take together, pass by pass; the BF16 file lies there while the second runs."""
    peaks = ("bytes_resident", "bytes_private", "others")
    return [
        {
            name: max(first[name], second[name]) if name in peaks else first[name] + second[name]
            for name in first
        }
        for first, second in zip(result["rows"]["to_bf16"], result["rows"]["llama_quantize"], strict=True)
    ]


def quantize_findings(result: Result) -> list[Finding]:
    """Return what was measured of every promise: times pair by pair, of memory and bytes the worst."""
    rows = result["rows"]
    times = findings(PROMISES, {**rows, "two_steps": two_steps(result)})
    peaks = [cost["bytes_resident"] / 2**20 for row in ("one_pass", "without_fast") for cost in rows[row]]
    n_differing, n = sum(map(len, result["differing_tensors"].values())), len(rows["one_pass"])
    return [
        *times,
        Finding(
            "largest peak resident set, nothing subtracted",
            Estimate.exact(max(peaks), n),
            "at most",
            MAX_RESIDENT,
            " MiB",
        ),
        Finding(
            "tensors that differ from llama-quantize's in any byte",
            Estimate.exact(n_differing, n),
            "at most",
            0,
        ),
    ]


def quantize_rows(result: Result) -> Iterator[Row]:
    """Yield what was measured of every promise."""
    for one in quantize_findings(result):
        yield Row("Quantizing", one, result["machine"])


def quantize_table(result: Result) -> list[str]:
    """The table of bench/quantize.py, as Markdown: medians of all passes."""
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


def quantize_section(result: Result, machines: Machines) -> list[str]:
    """Return the section as lines."""
    others = max(cost["others"] for costs in result["rows"].values() for cost in costs)
    noise = (
        ""
        if others <= QUIET
        else " **Not a quiet machine**: what others had slows the routes that use every core more than llama.cpp's converter, which uses one."
    )
    one, slow = (_median(result["rows"][row], "cpu_seconds") for row in ("one_pass", "without_fast"))
    both = _median(two_steps(result), "cpu_seconds")
    n = len(result["rows"]["one_pass"])
    often = f"{n} times, in turns, and medians are shown" if n > 1 else "once"
    key = machines.key(result["machine"])
    return [
        f"## {TITLE}",
        "",
        f"A checkpoint with the layer shapes of Mixtral 8x7B ({result['layers']} layer{'s' * (result['layers'] > 1)}, "
        f"{result['weights'] / 1e6:,.0f} million weights in BF16) becomes {result['output_type']} on {result['threads']} threads of machine {key}. "
        f"Every route runs in processes of its own, {often}. "
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
        *promise_table(quantize_findings(result), key),
        f"In processor time, which other processes disturb less, one pass takes {one / both:.2f}x of both steps, {slow / both:.2f}x without `fast`; "
        "llama.cpp's converter works on one core.",
        "",
    ]


def kernels_section(result: Result, machines: Machines) -> list[str]:
    """Return the section on the compiled quantizers as lines; they promise nothing."""
    lines = [
        "## Quantizing: the compiled quantizers alone",
        "",
        f"Million weights a second in memory, against `ggml_quantize_chunk`, same bytes, in turns on machine {machines.key(result['machine'])}.",
        "",
        "| type | threads | llama.cpp | mixcli | faster | interval | pairs | others |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in result["rows"]:
        low, high = row.get("low"), row.get("high")
        interval = "none" if low is None else f"{low:.1f} to {high:.1f}"
        if low is not None and row["pairs"] < MIN_PAIRS:
            interval += ", range"
        if row.get("disturbed"):
            interval += ", disturbed"
        others = f"{row['others']:.0%}" if "others" in row else ""
        lines.append(
            f"| {row['type']} | {row['threads']} | {row['ggml']:.1f} | {row['mixcli']:.1f} | {row['ratio']:.1f}x "
            f"| {interval} | {row.get('pairs', 1)} | {others} |"
        )
    return [*lines, ""]


def _median(costs: Sequence[Numbers], name: str) -> float:
    return median(cost[name] for cost in costs)
