"""Importance matrices on disk: both formats as the quantizer reads them, and unfinished ones."""

import resource
from pathlib import Path

import gguf
import numpy as np
import pytest

from mixcli.errors import DoesNotFit
from mixcli.insight.imatrix_file import PartialSums, is_imatrix, read_partial, write_imatrix, write_partial
from mixcli.insight.importance import Importance
from quantize.imatrix import read_imatrix

RANDOM = np.random.default_rng(1)
ENTRIES = {
    "blk.1.ffn_up_exps.weight": Importance(RANDOM.random((4, 8), np.float32), np.array([700, 324, 0, 0])),
    "blk.0.attn_q.weight": Importance(RANDOM.random((1, 8), np.float32), np.array([1024])),
    "blk.0.attn_k_b.weight": Importance(RANDOM.random((3, 8), np.float32), np.array([1024])),
}


def test_gguf_has_what_llama_imatrix_writes(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_imatrix(path, ENTRIES, 512, "text.txt")
    read = gguf.GGUFReader(path)
    fields = {key: field.contents() for key, field in read.fields.items() if not key.startswith("GGUF.")}
    assert fields == {
        "general.type": "imatrix",
        "imatrix.datasets": ["text.txt"],
        "imatrix.chunk_count": 2,
        "imatrix.chunk_size": 512,
    }
    assert [(one.name, one.shape.tolist()) for one in read.tensors] == [
        ("blk.0.attn_k_b.weight.in_sum2", [24]),
        ("blk.0.attn_k_b.weight.counts", [1]),
        ("blk.0.attn_q.weight.in_sum2", [8]),
        ("blk.0.attn_q.weight.counts", [1]),
        ("blk.1.ffn_up_exps.weight.in_sum2", [8, 4]),
        ("blk.1.ffn_up_exps.weight.counts", [1, 4]),
    ]
    assert path.stat().st_size % 32 == 0


def test_both_formats_give_the_quantizer_the_same(tmp_path: Path) -> None:
    for name in ("m.gguf", "m.dat"):
        write_imatrix(tmp_path / name, ENTRIES, 512, "text.txt")
        assert is_imatrix((tmp_path / name).read_bytes())
    first, second = (read_imatrix(tmp_path / name) for name in ("m.gguf", "m.dat"))
    assert (first.n_chunks, first.dataset) == (second.n_chunks, second.dataset) == (2, "text.txt")
    assert first.entries.keys() == second.entries.keys()
    for name, values in first.entries.items():
        np.testing.assert_allclose(second.entries[name], values, rtol=1e-6)
    assert first.entries["blk.1.ffn_up_exps.weight"][16:].tolist() == [1] * 16, "experts without a token"


@pytest.mark.parametrize("other", [b"GGUF" + bytes(4096), b"", b"\1\0\0\0", b"my notes on everything"])
def test_other_files_are_no_matrix(other: bytes) -> None:
    assert not is_imatrix(other)


def test_an_unfinished_matrix_is_continued_by_the_same_run_only(tmp_path: Path) -> None:
    path = tmp_path / "m.part"
    write_partial(path, PartialSums("run", 4, ENTRIES))
    found = read_partial(path, "run")
    assert found
    assert found.n_done == 4
    for name, entry in ENTRIES.items():
        assert found.entries[name].sums.tobytes() == entry.sums.tobytes()
        assert found.entries[name].counts.tolist() == entry.counts.tolist()
    assert read_partial(path, "another run") is None
    path.write_bytes(path.read_bytes()[:-200])
    assert read_partial(path, "run") is None
    assert read_partial(tmp_path / "nothing", "run") is None


def test_a_full_disk_advises_another_output(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(DoesNotFit, match=r"no space left for .*m\.gguf; free some, or .* with -o$"):
            write_partial(tmp_path / "m.gguf", PartialSums("a", 1, ENTRIES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())
