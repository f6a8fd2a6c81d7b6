"""Hostile GGUF headers: `show`, `list` and `plan` end with a code of the table, and what preflight lets through does not crash llama.cpp."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pytest
from hypothesis import strategies as st

from mixcli.errors import IntegrityError
from mixcli.store.model_info import row
from mixcli.store.preflight import check_gguf
from mixcli.store.store import find
from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.ggml_types import row_bytes
from quantize.source import Value
from tests.fuzz.budget import check_refusal, for_a_while, mixcli_here
from tests.fuzz.values import edited, edits, gguf_values, integers
from tests.mixcli.store.test_preflight import sound

pytestmark = pytest.mark.slow

METADATA, TENSORS = sound()
OTHER_KEYS = [
    "general.alignment", "general.file_type", "general.name", "general.license", "general.type", "general.quantization_version", "general.tags",
    "split.no", "split.count", "split.tensors.count", "tokenizer.chat_template", "tokenizer.ggml.pre", "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.precompiled_charsmap", "llama.attention.key_length",
    "llama.attention.value_length", "llama.attention.sliding_window", "llama.attention.causal", "llama.attention.scale", "llama.rope.dimension_count", "llama.rope.freq_base",
    "llama.rope.scaling.type", "llama.rope.scaling.factor", "llama.rope.scaling.original_context_length", "llama.rope.scaling.attn_factor",
    "llama.expert_shared_count", "llama.expert_group_count", "llama.expert_group_used_count", "llama.expert_weights_scale", "llama.expert_gating_func",
    "llama.expert_feed_forward_length", "llama.vocab_size", "llama.nextn_predict_layers", "llama.leading_dense_block_count", "llama.interleave_moe_layer_step",
    "llama.attention.temperature_scale", "llama.attention.layer_norm_epsilon", "llama.pooling_type", "llama.logit_scale", "llama.embedding_scale",
]  # fmt: skip
KEYS = [*METADATA, *OTHER_KEYS]

Shapes = Mapping[str, tuple[Type, tuple[int, ...]] | None]


@dataclass(frozen=True)
class Case:
    """A sound model with other metadata, other tensors, and bytes that were changed afterwards."""

    metadata: Mapping[str, Value | None]
    tensors: Shapes
    changes: list[tuple[float, int]]
    hole: bool  # whether the file is as long as its tensors say

    def data(self) -> tuple[bytes, int]:
        """The header's bytes, and the length of the file."""
        keys = {key: value for key, value in {**METADATA, **self.metadata}.items() if value is not None}
        entries, offset = [], 0
        for name, tensor in {**TENSORS, **self.tensors}.items():
            if tensor is not None:
                kind, shape = tensor
                entries.append((name, kind, shape, offset % 2**64))
                offset += -(-row_bytes(kind, shape[-1]) * prod(shape[:-1]) // 32) * 32
        header = edited(header_bytes(keys, entries), self.changes)
        return header, len(header) + offset if self.hole and offset < 2**40 else len(header)


dimensions = st.lists(integers(0, 2**63), min_size=1, max_size=4).map(tuple)
tensors = st.dictionaries(
    st.sampled_from(
        [
            *TENSORS,
            "blk.1.attn_q.weight",
            "rope_freqs.weight",
            "blk.0.ffn_gate.0.weight",
            "x" * 63,
            "é",
            "blk.99999.ffn_up_exps.weight",
        ]
    ),
    st.none()
    | st.tuples(
        st.sampled_from([Type.F32, Type.F16, Type.I8, Type.I32]),
        dimensions | st.sampled_from([shape for _, shape in TENSORS.values()]),
    ),
    max_size=2,
)
cases = st.builds(
    Case,
    st.dictionaries(st.sampled_from(KEYS), st.none() | gguf_values(), max_size=3),
    st.just({}) | tensors,
    st.just([]) | edits(),
    st.booleans() | st.just(True),
)

LOADER = """
import sys
from pathlib import Path
from mixcli.llama.batch import Batch; from mixcli.llama.model import Model; from mixcli.llama.context import Context
from profiles.placement import Placement
for line in sys.stdin:
    try:
        placement = Placement(n_ctx=64, n_threads=1, n_threads_batch=1)
        with Model.load(Path(line.rstrip("\\n")), placement) as model:
            context, batch = Context(model, placement), Batch(64)
            batch.extend(model.vocab.tokenize("ab \\u00e9")[:32] or [0], 0, 0, True)
            context.decode(batch)
            context.logits()
            del context
        print("works", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".replace("\\n", " "), flush=True)
"""


class Loader:
    """llama.cpp in a process of its own that loads one file after the other."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None

    def load(self, path: Path) -> str:
        """Load a file and compute with it; return what came of it, "died" where the process did not survive."""
        if self._child is None:
            pipe = subprocess.PIPE
            self._child = subprocess.Popen(
                [sys.executable, "-c", LOADER], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
            )
        child = self._child
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(f"{path}\n")
        child.stdin.flush()
        answer = child.stdout.readline().strip()
        if not answer:
            child.wait(30)
            self.close()
        return answer or "died"

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


def test_headers(tmp_path: Path, home: Path, loader: Loader) -> None:
    path = tmp_path / "m.gguf"
    n_loaded = 0

    def check(case: Case) -> None:
        nonlocal n_loaded
        header, size = case.data()
        with path.open("wb") as file:
            file.write(header)
            file.truncate(max(size, len(header)))
        check_refusal(mixcli_here("show", str(path)), (5,))
        check_refusal(mixcli_here("plan", str(path), "--profile", "rtx-4090"), (1, 2, 4, 5))
        row(find(str(path)))  # what `list` shows
        try:
            check_gguf(path)
        except IntegrityError:
            return
        end = loader.load(path)
        assert end != "died"
        n_loaded += end == "works"

    check(Case({}, {}, [], True))
    assert n_loaded == 1, "the model that the cases are made of must work"
    n_cases = for_a_while(cases, check)
    assert n_loaded > n_cases / 100, "hardly any case got past preflight"
