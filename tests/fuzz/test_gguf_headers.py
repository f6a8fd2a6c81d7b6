"""Hostile GGUF headers: `show`, `list` and `plan` end with a code of the table, and what preflight lets through does not crash llama.cpp."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from quantize.ggml_types import GGUFValueType as Kind
from quantize.ggml_types import row_bytes
from quantize.source import Value
from tests.fuzz.budget import check_refusal, for_a_while, mixcli_here
from tests.fuzz.values import edited, edits, floats32, gguf_values, integers
from tests.support import family_gguf
from tests.support.family import FAMILY, parts_of
from tests.support.loader import Loader

pytestmark = pytest.mark.slow

MODELS = {name: parts_of(facts) for name, facts in FAMILY.items()}
OTHERS = {
    family: (
        family_gguf.metadata(family),
        {name: (family_gguf.type_of(name), shape) for name, shape in family_gguf.shapes(family).items()},
    )
    for family in (*family_gguf.FAMILIES, "mamba")
}
# of architectures: some that llama.cpp knows, and some that nobody does
NAMES = (
    "llama4",
    "bert",
    "t5",
    "rwkv7",
    "jamba",
    "clip",
    "gemma3n",
    "nonsense",
    "LLAMA",
    "llama\n",
    "",
    "a" * 300,
)
OTHER_KEYS = [
    "general.alignment", "general.file_type", "general.name", "general.license", "general.type", "general.quantization_version", "general.tags",
    "split.no", "split.count", "split.tensors.count", "tokenizer.chat_template", "tokenizer.ggml.pre", "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_space_prefix", "tokenizer.ggml.precompiled_charsmap",
]  # fmt: skip
# of each architecture, after its name and a dot
ARCHITECTURE_KEYS = [
    "attention.key_length", "attention.value_length", "attention.sliding_window", "attention.causal", "attention.scale", "rope.dimension_count", "rope.freq_base",
    "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.yarn_log_multiplier",
    "expert_shared_count", "expert_group_count", "expert_group_used_count", "expert_weights_scale", "expert_weights_norm", "expert_gating_func",
    "expert_feed_forward_length", "vocab_size", "nextn_predict_layers", "leading_dense_block_count", "interleave_moe_layer_step",
    "attention.temperature_scale", "attention.temperature_length", "attention.layer_norm_epsilon", "pooling_type", "logit_scale", "embedding_scale",
    "attention.q_lora_rank", "attention.kv_lora_rank", "attention.key_length_mla", "attention.value_length_mla",
]  # fmt: skip
NUMBERS = {
    "factor",
    "scale",
    "freq_base",
    "multiplier",
    "epsilon",
}  # the last word of keys that are no whole numbers
Shapes = Mapping[str, tuple[Type, tuple[int, ...]] | None]


@dataclass(frozen=True)
class Case:
    """A sound model with other metadata, other tensors, and bytes that were changed afterwards."""

    model: str
    metadata: Mapping[str, Value | None]
    tensors: Shapes
    changes: list[tuple[float, int]]
    hole: bool  # whether the file is as long as its tensors say

    def data(self) -> tuple[bytes, int]:
        """The header's bytes, and the length of the file."""
        metadata, all_tensors = {**MODELS, **OTHERS}[self.model]
        keys = {key: value for key, value in {**metadata, **self.metadata}.items() if value is not None}
        entries, offset = [], 0
        for name, tensor in {**all_tensors, **self.tensors}.items():
            if tensor is not None:
                kind, shape = tensor
                entries.append((name, kind, shape, offset % 2**64))
                offset += -(-row_bytes(kind, shape[-1]) * prod(shape[:-1]) // 32) * 32
        header = edited(header_bytes(keys, entries), self.changes)
        return header, len(header) + offset if self.hole and offset < 2**40 else len(header)


dimensions = st.lists(integers(0, 2**63), min_size=1, max_size=4).map(tuple)
OTHER_TENSORS = [
    "blk.1.attn_q.weight",
    "rope_freqs.weight",
    "blk.0.ffn_gate.0.weight",
    "x" * 63,
    "é",
    "blk.99999.ffn_up_exps.weight",
]


@st.composite
def numbers(draw: st.DrawFn, architecture: str, metadata: Mapping[str, Value]) -> dict[str, Value]:
    """Hyperparameters of the type that llama.cpp reads, so that what is wrong is their value."""
    known = [key for key in metadata if key.startswith(f"{architecture}.")]
    key = draw(st.sampled_from([*known, *(f"{architecture}.{key}" for key in ARCHITECTURE_KEYS)]))
    if key.endswith("weights_norm"):
        return {key: Value(Kind.BOOL, draw(st.booleans()))}
    if key.rpartition("_")[2].rpartition(".")[2] in NUMBERS or key.endswith(("freq_base", "weights_scale")):
        return {key: Value(Kind.FLOAT32, draw(floats32()))}
    small = st.integers(0, 40) | st.sampled_from([48, 64, 96, 128, 512])
    return {key: Value(Kind.UINT32, draw(small | integers(0, 2**32 - 1)))}


@st.composite
def cases(draw: st.DrawFn, models: Mapping[str, tuple[Mapping[str, Value], Shapes]]) -> Case:
    model = draw(st.sampled_from(sorted(models)))
    metadata, tensors = models[model]
    architecture = metadata["general.architecture"].value
    keys = [*metadata, *OTHER_KEYS, *(f"{architecture}.{key}" for key in ARCHITECTURE_KEYS)]
    shapes = dimensions | st.sampled_from([shape for _, shape in tensors.values()])
    kinds = st.sampled_from([Type.F32, Type.F16, Type.I8, Type.I32])
    others = st.dictionaries(
        st.sampled_from([*tensors, *OTHER_TENSORS]), st.none() | st.tuples(kinds, shapes), max_size=2
    )
    any_values = st.dictionaries(st.sampled_from(keys), st.none() | gguf_values(), max_size=3)
    return Case(
        model,
        draw(any_values | numbers(architecture, metadata)),
        draw(st.just({}) | others),
        draw(st.just([]) | edits()),
        draw(st.booleans() | st.just(True)),
    )


@st.composite
def renamed(draw: st.DrawFn) -> Case:
    """A model of another family under another name, with all its keys."""
    case, name = draw(cases(OTHERS)), draw(st.sampled_from(NAMES))
    return replace(case, metadata={**case.metadata, **family_gguf.renamed(case.model, name)})


@pytest.fixture
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


class Check:
    """What holds for every case; counts the files that llama.cpp computed with."""

    def __init__(self, path: Path, loader: Loader) -> None:
        self._path, self._loader, self.n_loaded = path, loader, 0

    def __call__(self, case: Case) -> None:
        path = self._path
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
        end = self._loader.load(path)
        assert end != "died"
        self.n_loaded += end == "works"


def test_headers(tmp_path: Path, home: Path, loader: Loader) -> None:
    check = Check(tmp_path / "m.gguf", loader)
    for model in MODELS:
        check(Case(model, {}, {}, [], True))
    assert check.n_loaded == len(MODELS), "the models that the cases are made of must work"
    n_cases = for_a_while(cases(MODELS), check)
    assert check.n_loaded > n_cases / 100, "hardly any case got past preflight"


def test_headers_of_other_families(tmp_path: Path, home: Path, loader: Loader) -> None:
    check = Check(tmp_path / "m.gguf", loader)
    for family in family_gguf.FAMILIES:
        check(Case(family, {}, {}, [], True))
    assert check.n_loaded == len(family_gguf.FAMILIES)
    n_cases = for_a_while(cases(OTHERS) | renamed(), check)
    assert check.n_loaded > n_cases / 100, "hardly any case got past preflight"
