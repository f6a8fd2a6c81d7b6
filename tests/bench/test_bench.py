"""What the benchmarks say is what was measured: the page, the watched process, the comparison."""

import sys
from pathlib import Path

import pytest

from bench.batch_page import OVERHEAD, batch_section
from bench.estimate import Estimate, Finding
from bench.page import Machines
from bench.process import measure
from bench.quantize import differing_tensors, rows
from bench.quantize_page import kernels_section, quantize_findings
from bench.report import PAGE, page
from quantize import Options, convert
from tests.support.bench_machine import MACHINE
from tests.support.checkpoints import write_checkpoint

MIB = 1 << 20
WORK = """
import pathlib, sys, time
held = bytearray(64 << 20)
left = pathlib.Path(sys.argv[1], "left")
gone = pathlib.Path(sys.argv[1], "gone")
left.write_bytes(bytes(1 << 20))
gone.write_bytes(bytes(2 << 20))
end = time.process_time() + 0.3
while time.process_time() < end:
    pass
gone.unlink()
"""


def test_the_page_is_what_the_results_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m bench.report"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_is_seen(tmp_path: Path) -> None:
    (tmp_path / "before").write_bytes(bytes(5 * MIB))
    cost = measure([sys.executable, "-c", WORK, str(tmp_path)], tmp_path)
    assert 0.3 <= cost.cpu_seconds < 5
    assert cost.seconds >= 0.3
    assert 64 * MIB < cost.bytes_private <= cost.bytes_resident < 256 * MIB
    assert 3 * MIB <= cost.bytes_disk < 4 * MIB
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before", "left"]


def test_a_failed_process_ends_the_benchmark(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="what went wrong"):
        measure([sys.executable, "-c", "raise SystemExit('what went wrong')"], tmp_path)


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", n_layer=1, n_vocab=32000)
    one, other, type_ = tmp_path / "one.gguf", tmp_path / "other.gguf", tmp_path / "type.gguf"
    convert(folder, one, Options(output_type="BF16"))
    convert(folder, other, Options(output_type="BF16"))
    assert differing_tensors(one, other) == []
    data = bytearray(other.read_bytes())
    data[-1] ^= 1
    other.write_bytes(data)
    assert len(differing_tensors(one, other)) == 1
    convert(folder, type_, Options(output_type="Q8_0"))
    assert "output.weight" in differing_tensors(one, type_)
    assert "output_norm.weight" not in differing_tensors(one, type_)


def test_batch_results_are_shown_as_they_are_written_now_and_as_they_were() -> None:
    figures: dict[str, object] = {"machine": MACHINE, "run": 107, "request": 21, "python": 8}
    older = {**figures, "overhead": 85.2, "limit": 150.0, "kept": True}
    now = {
        **figures,
        "promise": Finding(OVERHEAD, Estimate.of([85.0, 140.0, 160.0]), "at most", 150).to_data(),
    }
    rounds = {"mixcli batch": [{"texts": 8.0}], "llama-server": [{"texts": 5.0, "others": 0.02}]}
    found = {"machine": MACHINE, "n_texts": 9, "n_peer": 9, "rounds": rounds, "ratio": 1.6, "limit": 1.8}
    pages = [
        "\n".join(batch_section({"overhead": one, "labels": {"demo": found}}, Machines()))
        for one in (older, now)
    ]
    assert "| 85 | no interval | 21 | at most 150 | kept, no interval |" in pages[0]
    assert "| 140 | 85 to 160, range | 3 | at most 150 | open |" in pages[1]
    assert "| 1.60x | no interval | 1 | at least 1.80x | not kept, no interval | 2% | M1 |" in pages[1]


def test_costs_are_sorted_by_row() -> None:
    one = {"to_bf16: seconds": 3.0, "llama_quantize: seconds": 5.0, "others": 0.1}
    assert rows({"two_steps": [one, one], "first_time": [{"first_time: seconds": 9.0}]}) == {
        "to_bf16": [{"seconds": 3.0}] * 2,
        "llama_quantize": [{"seconds": 5.0}] * 2,
        "first_time": [{"seconds": 9.0}],
    }


def test_promises_are_held_against_the_worst_memory_and_times_pair_by_pair() -> None:
    def costs(*seconds: float, resident: int = MIB) -> list[dict[str, float]]:
        return [
            {"seconds": s, "bytes_resident": resident, "bytes_private": 0, "cpu_seconds": s, "others": 0}
            for s in seconds
        ]

    measured = {
        "one_pass": costs(9, 10, 30, resident=3000 * MIB),
        "without_fast": costs(50, 60, 90),
        "to_bf16": costs(30, 40, 45),
        "llama_quantize": costs(54, 60, 90),
    }
    found = quantize_findings({"rows": measured, "differing_tensors": {"one_pass": ["a"], "from_bf16": []}})
    assert [(round(one.estimate.value, 2), one.words) for one in found] == [
        (0.11, "kept"),
        (0.6, "open"),
        (6.0, "kept"),
        (3000, "not kept"),
        (1, "not kept"),
    ]


def test_a_range_and_a_disturbed_machine_stand_beside_the_speed_of_a_kernel() -> None:
    row = {"type": "Q4_K", "threads": 1, "ggml": 10.0, "mixcli": 20.0, "ratio": 2.0, "low": 1.5, "high": 2.5}
    rows = [
        {**row, "pairs": 10},
        {**row, "pairs": 5, "others": 0.4, "disturbed": True},
        {**row, "low": None, "high": None},
    ]
    lines = kernels_section({"machine": MACHINE, "rows": rows}, Machines())[-4:-1]
    assert [line.split(" | ")[5] for line in lines] == [
        "1.5 to 2.5",
        "1.5 to 2.5, range, disturbed",
        "none",
    ]
