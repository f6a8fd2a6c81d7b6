"""What the benchmarks say is what was measured: the page, the watched process, the comparison."""

import sys
from pathlib import Path

import pytest

from bench.process import measure
from bench.quantize import differing_tensors, rotated
from bench.report import PAGE, page, quantize_ratios
from quantize import Options, convert
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


def test_everybody_comes_first_once() -> None:
    routes = [lambda: None, lambda: None, lambda: None]
    orders = [list(rotated(routes, number)) for number in range(3)]
    assert {order[0] for order in orders} == set(routes)
    assert all(set(order) == set(routes) for order in orders)


def test_promises_are_held_against_the_worst_memory_and_the_median_time() -> None:
    def costs(*seconds: float, resident: int = MIB) -> list[dict[str, float]]:
        return [
            {"seconds": s, "bytes_resident": resident, "bytes_private": 0, "cpu_seconds": s, "others": 0}
            for s in seconds
        ]

    rows = {
        "one_pass": costs(9, 10, 30, resident=3000 * MIB),
        "without_fast": costs(50, 60, 90),
        "to_bf16": costs(30, 40, 45),
        "llama_quantize": costs(55, 60, 90),
    }
    lines = quantize_ratios({"rows": rows, "differing_tensors": {"one_pass": ["a"], "from_bf16": []}})
    assert lines[2:] == [
        "| wall time of one pass, in terms of both steps | 0.10x | at most 0.35x | yes |",
        "| the same without `fast` | 0.60x | at most 0.65x | yes |",
        "| weights/s, in terms of llama-quantize | 6.00x | at least 2.50x | yes |",
        "| peak resident set, nothing subtracted | 3,000 MiB | at most 2,048 MiB | no |",
        "| tensors that differ from llama-quantize's in any byte | 1 | at most 0 | no |",
    ]
