"""Tailored files are better than llama.cpp's mixes at equal bytes, and more so where a mix leaves memory unused.

The models have weights off every grid, and only feed-forward matrices are free, as in Mixtral. All quants: python -m bench.tailor.
"""

from pathlib import Path

import pytest

from quantize.ggml_types import GGMLQuantizationType as T
from tests.support.off_grid import write_off_grid
from tests.support.tailoring import TailoringLab

LAYERS = (*range(12), *range(20, 30))  # what lies between them changes the residual stream least
N_VOCAB = 12288
FAST = (T.Q2_K, T.Q3_K, T.IQ4_XS, T.Q4_K, T.Q5_K, T.Q6_K)  # the types that are made quickly


@pytest.mark.slow
def test_a_tailored_file_beats_the_mix_the_plain_errors_and_a_random_fill(
    smol_path: Path, tmp_path: Path
) -> None:
    source = write_off_grid(smol_path, tmp_path / "model.gguf", layers=LAYERS, n_vocab=N_VOCAB)
    lab = TailoringLab(source, tmp_path, FAST)
    n_bytes, fixed = lab.problem.n_bytes(lab.standard("Q3_K_M")), lab.standard("Q3_K_M")
    mix = lab.divergence("mix", lab.standard("Q3_K_M"))
    ours = lab.divergence("ours", lab.problem.within(n_bytes, fixed))
    plain = lab.divergence("plain", lab.plain.within(n_bytes, fixed))
    assert ours <= 0.93 * mix
    assert ours < plain, "the objective decides, not the errors alone"
    between = lab.between("Q3_K_M", "IQ4_XS", 0.55)
    ours = lab.divergence("ours between", lab.problem.within(between, fixed))
    random = lab.divergence("random between", lab.problem.simply_filled(between, fixed))
    assert ours <= 0.75 * mix
    assert ours <= random
