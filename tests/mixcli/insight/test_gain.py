"""What an importance matrix is worth: at Q3_K_M less than 0.6 of the divergence, on text that it has not seen."""

from pathlib import Path

import pytest

from tests.support.off_grid import N_LAYER, off_grid
from tests.support.quality import baseline, divergence, importance, quantized
from tests.support.unequal_experts import mixture_of

N_VOCAB = 12288
N_HELD_OUT = 500  # characters of each language, of code and of conversations: about 900 tokens
MOST = 0.6
# layers and characters of calibration; of the mixture those layers are left out that change the residual stream least
CASES = {"dense": (range(N_LAYER), 700), "mixture": ((*range(12), *range(20, N_LAYER)), 500)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_a_matrix_is_worth_two_fifths_of_the_loss(kind: str, smol_path: Path, tmp_path: Path) -> None:
    layers, n_calibration = CASES[kind]
    dense = off_grid(smol_path, layers=layers, n_vocab=N_VOCAB)
    path = dense.write(tmp_path / "large.gguf")
    if kind == "mixture":
        path = mixture_of(dense, path).write(path)
    matrix = importance(path, tmp_path / "imatrix.gguf", n_calibration)
    kept = baseline(path, tmp_path / "baseline", N_HELD_OUT)
    with_matrix, without = (
        divergence(quantized(path, tmp_path / "small.gguf", "Q3_K_M", one), kept, N_HELD_OUT)
        for one in (matrix, None)
    )
    assert {"english", "french", "german", "spanish", "italian", "code", "chat"} <= with_matrix.keys()
    found, before = with_matrix["all"].kl_mean, without["all"].kl_mean
    assert found
    assert before
    assert found.value <= MOST * before.value
