"""Hostile importance matrices: read and used to quantize, or refused in one sentence; ggml never sees what it would abort at."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st

from quantize import QuantizeError
from quantize.conversion import Options, prepare_model
from quantize.writer import execute
from tests.fuzz.budget import RIDDLES, for_a_while
from tests.fuzz.values import FLOATS, edited, edits
from tests.quantize.test_imatrix import packed_dat, write_as_gguf
from tests.quantize.tiny import model_of, random_weights

pytestmark = pytest.mark.slow

WEIGHTS = random_weights(n_layer=1, n_embd=256, n_ff=256, n_expert=2)
NAMES = [*WEIGHTS, "blk.0.ffn_up.weight", "", "x" * 63, "blk.7.attn_q.weight"]
TYPES = ["Q4_K_M", "Q2_K", "Q3_K_S", "IQ4_XS", "IQ3_S", "IQ2_XS", "Q5_K_M", "Q6_K", "Q8_0", "Q4_0"]


@dataclass(frozen=True)
class Case:
    """An importance matrix in one of the two formats, with values and bytes that are changed."""

    as_gguf: bool
    names: list[str]
    fills: list[float]
    count: float
    lengths: list[int]
    changes: list[tuple[float, int]]
    type: str

    def write(self, path: Path) -> None:
        entries = {}
        for name, fill, length in zip(self.names, self.fills, self.lengths, strict=False):
            shape = WEIGHTS[name].shape if name in WEIGHTS else (1, 1, 256)
            n_expert = shape[0] if len(shape) == 3 else 1
            with np.errstate(all="ignore"):
                sums = np.full((n_expert, max(1, shape[-1] + length)), fill).astype(np.float32)
                sums[:, ::2] = 1.0
            entries[name] = sums
        with np.errstate(all="ignore"):
            if self.as_gguf:
                counts = {name: np.full((len(sums), 1), self.count) for name, sums in entries.items()}
                write_as_gguf(path, {name: (sums, counts[name]) for name, sums in entries.items()})
            else:
                n_calls = int(np.clip(np.nan_to_num(self.count), -(2**31), 2**31 - 1))
                path.write_bytes(
                    packed_dat(
                        {name: (n_calls, sums.reshape(-1)) for name, sums in entries.items()},
                        struct.pack("<ii", 3, 1) + b"w",
                    )
                )
        path.write_bytes(edited(path.read_bytes(), self.changes))


value = st.sampled_from([1.0, *FLOATS])
cases = st.builds(
    Case,
    st.booleans(),
    st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True),
    st.lists(value, min_size=4, max_size=4),
    value,
    st.lists(st.sampled_from([0, 0, 0, 0, 1, -1, -255, 256]), min_size=4, max_size=4),
    st.just([]) | edits(),
    st.sampled_from(TYPES),
)


def test_imatrix_files(tmp_path: Path) -> None:
    path, target = tmp_path / "imatrix", tmp_path / "out.gguf"
    model = model_of(WEIGHTS)
    n_used = 0

    def check(case: Case) -> None:
        nonlocal n_used
        target.unlink(missing_ok=True)
        for left in tmp_path.glob("out.gguf?*"):
            left.unlink()
        case.write(path)
        try:
            execute(prepare_model(model, target, Options(output_type=case.type, imatrix=path, n_threads=1)))
        except QuantizeError as error:
            assert not RIDDLES.search(str(error)), error
            assert "\n" not in str(error)
            return
        n_used += 1

    check(Case(True, ["blk.0.attn_q.weight"], [2.0], 1.0, [0], [], "Q4_K_M"))
    assert n_used == 1
    for_a_while(cases, check)
