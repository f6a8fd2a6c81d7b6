"""The GPU measurement, as far as it goes without a GPU: what travels, what is measured, what is promised. `make gpu-dry` does more."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from bench import fit
from bench.gpu import build, cell, grid, measure, table
from bench.gpu.pack import wanted
from mixcli.planning.report import Subject
from mixcli.pull.remote_shape import unseen_shape
from mixcli.system.process_state import born
from profiles.layout import layout_of, on_host
from profiles.ledger import accounts
from profiles.machine import Gpu, Machine
from profiles.placement import Placement
from tests.support.side_by_side import verdict
from tests.support.synthetic import MID
from tests.support.waiting import wait_for

MACHINE = Machine(64 << 30, 8, (Gpu("CUDA0", 80 << 30),))


@pytest.mark.parametrize(
    ("name", "travels"),
    [
        ("pyproject.toml", True),
        ("llama_cpp/llama_cpp.py", True),
        ("vendor/llama.cpp/ggml/src/ggml.c", True),
        ("vendor/llama.cpp/ggml/src/ggml-cuda/mmq.cu", True),
        ("vendor/llama.cpp/ggml/src/ggml-alloc.c", True),
        ("vendor/llama.cpp/common/fit.cpp", True),
        ("vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp", False),
        ("vendor/llama.cpp/models/ggml-vocab-phi-3.gguf", False),
        ("vendor/llama.cpp/tools/server/public/index.html.gz", False),
        ("vendor/llama.cpp/.github/workflows/build.yml", False),
        (".git/modules/vendor/llama.cpp/objects/pack/pack-1.pack", False),
        ("examples/server/server.py", False),
    ],
)
def test_what_travels(name: str, travels: bool) -> None:
    assert wanted(name) is travels


def test_a_bare_machine_can_pack_and_build() -> None:
    """`-I -S` leaves nothing but the standard library to import."""
    code = "import sys; sys.path.insert(0, '.'); import bench.gpu.__main__, bench.gpu.pack"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, cwd=build.ROOT)


def test_cuda_is_built_for_one_architecture() -> None:
    assert "-DCMAKE_CUDA_ARCHITECTURES=89-real" in build.cmake_args("89")
    assert "-DGGML_CUDA=OFF" in build.cmake_args(None)


def test_a_build_out_of_time_leaves_no_compiler_behind(tmp_path: Path) -> None:
    compiler = tmp_path / "compiler"
    assert not build.finished(["sh", "-c", f"sleep 600 & echo $! > {compiler}; wait"], 3)
    wait_for(lambda: not born(int(compiler.read_text())))
    assert build.finished(["sh", "-c", f"(sleep 1; touch {tmp_path / 'late'}) & wait"], 60)
    assert (tmp_path / "late").exists()
    with pytest.raises(subprocess.CalledProcessError):
        build.finished(["false"], 60)


def all_cells(gib: float, **other: object) -> dict[str, grid.Cell]:
    asked = replace(grid.DRY, budgets=(gib,), **other)
    subject = Subject("mid", unseen_shape(MID, "Q4_K_M"), None)
    return {one.what: one for one in grid.cells(subject, "Q4_K_M", MACHINE, asked, Path("fit"))}


def test_a_budget_is_emulated_and_every_way_keeps_within_it() -> None:
    found = all_cells(1.0)
    on_gpu = {}
    for what in (grid.OURS, grid.WHOLE_LAYERS, grid.ASIDE):
        one = found[what]
        assert one.machine.gpus[0].bytes_free == int(1.0 * 2**30) - grid.CONTEXT_BYTES
        placement = one.place(one)
        assert placement is not None
        layout = layout_of(one.subject.shape, placement, one.machine)
        ledger = accounts(one.subject.shape, one.machine, placement, layout)
        assert ledger[0].left >= 0
        on_gpu[what] = ledger[0].weights
    assert on_gpu[grid.ASIDE] < on_gpu[grid.WHOLE_LAYERS] < 430 << 20
    mapped, still = (found[what].place(found[what]) for what in ("load mode mmap", "without op_offload"))
    assert mapped is not None
    assert mapped.load_mode == "mmap"
    assert still is not None
    assert not still.op_offload
    assert found[grid.TOGETHER].batches == grid.DRY.batches


def test_what_fits_nowhere_is_a_row_without_a_placement() -> None:
    one = all_cells(0.7)[grid.ASIDE]
    assert cell.measure(one, grid.DRY).died == cell.FITS_NOT


def test_sweeps_are_at_the_largest_and_at_the_smallest_budget() -> None:
    subject = Subject("mid", unseen_shape(MID, "Q4_K_M"), None)
    found = [one.key for one in grid.cells(subject, "Q4_K_M", MACHINE, grid.Grid(), Path("fit"))]
    assert len(set(found)) == len(found)
    assert [key[1:4] for key in found if key[4] == grid.SMALL_BATCHES] == [
        (24, 8192, "f16"),
        (8, 8192, "f16"),
    ]
    # the largest micro-batch is filled
    assert max(grid.Grid().ubatches) <= min(grid.Grid().n_prompt, grid.Grid().sweep_context // 2)


def test_the_roofline_is_bytes_over_bandwidth() -> None:
    shape = unseen_shape(MID, "Q4_K_M")
    slow = replace(MACHINE, bandwidth=10.0, gpus=(replace(MACHINE.gpus[0], bandwidth=1000.0),))
    aside = on_host(shape, 1)
    read = shape.bytes_output + sum(layer.attention + layer.experts / 4 for layer in shape.each_layer())
    assert cell.roofline(shape, slow, Placement(), aside, 0) == pytest.approx(10e9 / read, rel=1e-3)
    full = cell.roofline(shape, slow, Placement(), aside, 4096)
    assert full < cell.roofline(shape, slow, Placement(type_k="q8_0"), aside, 4096) < 10e9 / read


def test_what_llamas_fit_says_is_read() -> None:
    wish = Placement(8192, n_ubatch=512, type_k="q8_0", type_v="q8_0")
    said = "ngl 20\nts 12 8 0\not blk\\.(3|4)\\.ffn_(up|down)_exps CPU\not x RPC0[127.0.0.1:1]\n"
    found = fit.read(said, wish, 2)
    assert (found.n_gpu_layers, found.tensor_split) == (20, (12.0, 8.0))
    assert found.tensor_overrides == (
        ("blk\\.(3|4)\\.ffn_(up|down)_exps", "CPU"),
        ("x", "RPC0[127.0.0.1:1]"),
    )
    assert (found.n_ctx, found.type_k, found.n_ubatch) == (8192, "q8_0", 512)
    assert fit.read("ngl -1\nts 0 0\n", wish, 1) == replace(wish, n_gpu_layers=1 << 16)


@pytest.mark.parametrize(("code", "words"), [(2, "a budget is larger"), (139, "exit code 139")])
def test_a_fit_that_fails_is_not_taken_for_one_that_finds_nothing(
    tmp_path: Path, code: int, words: str
) -> None:
    program = tmp_path / "fit"
    program.write_text(f"#!/bin/sh\necho {words if code == 2 else ''} >&2\nexit {code}\n", "utf-8")
    program.chmod(0o700)
    with pytest.raises(SystemExit, match=words):
        fit.ask(program, Path("model.gguf"), Placement(), [1024])
    program.write_text(f"#!/bin/sh\nexit {fit.NO_FIT}\n", "utf-8")
    assert fit.ask(program, Path("model.gguf"), Placement(), [1024]) is None


OURS = cell.Row("Q4_K_M", 24, 8192, "f16", grid.OURS, 2048, 0.2, 100.0, 900.0, 40.0, off=0.001)
ROWS = {
    row.what: row
    for row in (
        OURS,
        replace(OURS, what=grid.WHOLE_LAYERS, decode=25.0),
        replace(OURS, what=grid.ASIDE, died=cell.FITS_NOT, decode=0.0),
        replace(OURS, what=grid.FIT, decode=39.0),
        replace(OURS, what=grid.SMALL_BATCHES, n_ubatch=512, prefill=400.0),
    )
}


def result(**changes: cell.Row | None) -> dict[str, object]:
    """Give a result in which every promise holds, with rows changed or left out."""
    rows = [asdict(row) for row in (ROWS | changes).values() if row]
    return json.loads(json.dumps(measure.as_data({"name": "a card", "note": "a note"}, rows)))


def problems(**changes: cell.Row | None) -> list[str]:
    problems, missing = measure.judged(table.promises(result(**changes)), is_stand_in=False)
    return [*problems, *missing]


def test_the_table_says_what_was_measured_and_promised() -> None:
    lines = list(table.table(result()))
    row = "| Q4_K_M | 24 GiB | 8192 | f16 | our plan | 2048 | 900.0 | 40.0 | 40% | 0.10% |  |"
    assert row in lines
    assert "| decode against whole layers, Q4_K_M at 24 GiB | 1.6 | at least 1.3 | kept |" in lines
    assert "| placements that died | 0 | at most 0 | kept |" in lines
    assert len({line.count("|") for line in lines if line.startswith("| Q4_K_M")} | {row.count("|")}) == 1
    assert problems() == []


@pytest.mark.parametrize(
    ("what", "change", "words"),
    [
        (grid.OURS, {"off": 0.03}, "the ledger is off is 0.03, promised 0.02"),
        (grid.OURS, {"decode": 30.0}, "whole layers, Q4_K_M at 24 GiB is 1.2, promised 1.3"),
        (grid.OURS, {"decode": 38.0}, "llama.cpp's fit is 0.974, promised 1"),
        (grid.OURS, {"prefill": 700.0}, "micro-batches of 512 is 1.75, promised 2"),
        (grid.OURS, {"died": "out of memory", "decode": 0.0}, "our plan: out of memory"),
        (grid.OURS, {"died": cell.FITS_NOT, "decode": 0.0}, "other ways that run where no plan fits is 2"),
        (grid.FIT, {"died": "killed", "decode": 0.0}, "llama.cpp's fit: killed"),
        (grid.FIT, {"died": cell.FITS_NOT, "decode": 0.0}, "decode against llama.cpp's fit: nothing was measured"),
        (grid.FIT, None, "ways that are missing in a cell is 1"),
        (grid.WHOLE_LAYERS, None, "Q4_K_M at 24 GiB: nothing was measured"),
        (grid.OURS, None, "ways that are missing in a cell: nothing was measured"),
        (grid.SMALL_BATCHES, None, "micro-batches of 512: nothing was measured"),
    ],
)  # fmt: skip
def test_what_is_not_as_promised_is_said(what: str, change: dict[str, object] | None, words: str) -> None:
    found = problems(**{what: None if change is None else replace(ROWS[what], **change)})
    assert any(words in problem for problem in found), found


def test_what_was_not_measured_is_not_broken_except_in_a_rehearsal() -> None:
    promises = table.promises(result(**{grid.SMALL_BATCHES: None}))
    lacking = ["prefill with experts on the host against micro-batches of 512: nothing was measured"]
    assert measure.judged(promises, is_stand_in=False) == ([], lacking)
    assert measure.judged(promises, is_stand_in=True) == (lacking, [])
    assert [one.verdict for one in promises if not one.found] == ["not measured"]


def test_a_measurement_goes_on_only_on_the_same_card(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    assert measure.known(target, "a card") == []
    target.write_text(json.dumps(result()), "utf-8")
    assert [measure.key(row)[4] for row in measure.known(target, "a card")] == list(ROWS)
    assert measure.known(target, "another card") == []


def wave(*changes: tuple[int, float]) -> np.ndarray:
    logits = np.sin(np.arange(1000, dtype=np.float32)) * 4
    for at, value in changes:
        logits[at] = value
    return logits


@pytest.mark.parametrize(
    ("others", "same"),
    [
        ([wave((0, 10.0))] * 3, True),
        ([wave((0, 10.0)) * 1.1] * 3, True),  # rounding, everywhere
        ([wave((0, 10.0)) * 1.3] * 3, False),  # too far, everywhere
        ([wave((0, 10.0)), wave((0, 10.0)), wave((0, 10.0)) * 1.3], True),  # another expert, once
        ([wave((0, 10.0)), wave((0, 10.0)), wave((0, 10.0)) * 1.7], False),
        ([wave((0, 10.0)), wave((0, 10.0), (1, 10.01))], False),  # the choice did not hang on rounding
        ([wave((0, 10.0)), wave((0, 10.0)), wave((0, 10.0), (5, np.nan))], False),
        ([wave((0, 10.0))[::-1]] * 3, False),
        ([], False),
    ],
)
def test_logits_are_the_same_up_to_rounding(others: list[np.ndarray], same: bool) -> None:
    assert verdict([(wave((0, 10.0)), other) for other in others]).same is same


def test_a_near_tie_may_be_chosen_otherwise() -> None:
    one = wave((0, 10.0), (1, 9.9))
    other = one * 1.05
    other[1] = 10.6
    found = verdict([(one, one), (one, other)])
    assert found.same
    assert str(found).startswith("2 tokens, logits ")
    assert "; 1 chosen otherwise, ahead by 0." in str(found)
    assert str(verdict([(one, one)])).endswith("0.000 at most; the text is equal")


def test_without_a_driver_nothing_is_said_of_its_memory() -> None:
    with cell.DriverMemory() as driver:
        pass
    assert driver.peak is None or driver.peak >= 0
