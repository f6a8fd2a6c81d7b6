"""Preflight against llama.cpp itself: what it refuses really fails there (by abort, signal or error), and a sound file passes."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import pytest

from mixcli.errors import IntegrityError
from mixcli.store.preflight import check_gguf
from quantize.file_layout import header_bytes
from quantize.ggml_types import GGMLQuantizationType as Type
from quantize.ggml_types import GGUFValueType as Kind
from quantize.ggml_types import row_bytes
from quantize.source import Value, f32, f32s, flag, i32s, text, texts, u32
from quantize.vocab.vocabulary import TokenType

N_EMBD, N_FF, N_HEAD, N_HEAD_KV, N_EXPERT = 64, 96, 4, 2, 4
HEAD = N_EMBD // N_HEAD
Tensors = dict[str, tuple[Type, tuple[int, ...]]]
Metadata = dict[str, Value]


def u16(value: int) -> Value:
    return Value(Kind.UINT16, value)


def sound() -> tuple[Metadata, Tensors]:
    """A one-layer mixture of experts with a small SentencePiece vocabulary."""
    tokens = [
        b"<unk>",
        b"<s>",
        b"</s>",
        *(b"<0x%02X>" % byte for byte in range(256)),
        b"\xe2\x96\x81",
        b"a",
        b"b",
    ]
    types = [
        TokenType.UNKNOWN,
        TokenType.CONTROL,
        TokenType.CONTROL,
        *[TokenType.BYTE] * 256,
        *[TokenType.NORMAL] * 3,
    ]
    metadata = {
        "general.architecture": text("llama"),
        "llama.block_count": u32(1),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(N_EMBD),
        "llama.feed_forward_length": u32(N_FF),
        "llama.attention.head_count": u32(N_HEAD),
        "llama.attention.head_count_kv": u32(N_HEAD_KV),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "llama.expert_count": u32(N_EXPERT),
        "llama.expert_used_count": u32(2),
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": texts(tokens),
        "tokenizer.ggml.scores": f32s([0.0] * len(tokens)),
        "tokenizer.ggml.token_type": i32s(types),
    }
    shapes = {
        "token_embd.weight": (len(tokens), N_EMBD),
        "output_norm.weight": (N_EMBD,),
        "output.weight": (len(tokens), N_EMBD),
        "blk.0.attn_norm.weight": (N_EMBD,),
        "blk.0.attn_q.weight": (N_EMBD, N_EMBD),
        "blk.0.attn_k.weight": (N_HEAD_KV * HEAD, N_EMBD),
        "blk.0.attn_v.weight": (N_HEAD_KV * HEAD, N_EMBD),
        "blk.0.attn_output.weight": (N_EMBD, N_EMBD),
        "blk.0.ffn_norm.weight": (N_EMBD,),
        "blk.0.ffn_gate_inp.weight": (N_EXPERT, N_EMBD),
        "blk.0.ffn_gate_exps.weight": (N_EXPERT, N_FF, N_EMBD),
        "blk.0.ffn_up_exps.weight": (N_EXPERT, N_FF, N_EMBD),
        "blk.0.ffn_down_exps.weight": (N_EXPERT, N_EMBD, N_FF),
    }
    return metadata, {name: (Type.F32, shape) for name, shape in shapes.items()}


def write(path: Path, metadata: Mapping[str, Value], tensors: Tensors) -> Path:
    """Write a GGUF whose weights are zeros."""
    entries, offset = [], 0
    for name, (kind, shape) in tensors.items():
        entries.append((name, kind, shape, offset))
        offset += -(-row_bytes(kind, shape[-1]) * prod(shape[:-1]) // 32) * 32
    header = header_bytes(metadata, entries)
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + offset)
    return path


def changed(
    path: Path, metadata: Mapping[str, Value | None], tensors: Mapping[str, object] | None = None
) -> Path:
    """Write the sound model with some metadata or tensors replaced; None takes one out."""
    keys, shapes = sound()
    all_tensors = {name: value for name, value in {**shapes, **(tensors or {})}.items() if value}
    return write(path, {k: v for k, v in {**keys, **metadata}.items() if v}, all_tensors)  # type: ignore[arg-type]


def llama_cpp_works(path: Path) -> bool:
    """Load, tokenize and compute in a child; False however that fails."""
    code = (
        "import sys; from pathlib import Path; from mixcli.llama.batch import Batch; from mixcli.llama.model import Model; from mixcli.llama.context import Context; "
        "from profiles.placement import Placement; p = Placement(n_ctx=64, n_threads=1, n_threads_batch=1); "
        "m = Model.load(Path(sys.argv[1]), p); t = m.vocab.tokenize('ab \\u00e9'); c = Context(m, p); b = Batch(32); "
        "b.extend(t, 0, 0, True); c.decode(b); c.logits()"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, timeout=60, check=False
    )
    return run.returncode == 0


SOUND: dict[str, dict[str, Value | None]] = {
    "as it is": {},
    "one expert used": {"llama.expert_used_count": u32(1)},
    "all experts used": {"llama.expert_used_count": u32(N_EXPERT)},
    "key and value length": {"llama.attention.key_length": u32(HEAD), "llama.attention.value_length": u32(HEAD)},
    "rope": {"llama.rope.dimension_count": u32(HEAD), "llama.rope.scaling.type": text("yarn"), "llama.rope.freq_base": f32(1e6)},
    "heads per layer": {"llama.attention.head_count": i32s([N_HEAD])},
    "no scores": {"tokenizer.ggml.scores": None},
    "an empty token": {"tokenizer.ggml.tokens": texts([*sound()[0]["tokenizer.ggml.tokens"].value[:-1], b""])},
}  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_file_passes_and_works(tmp_path: Path, case: str) -> None:
    path = changed(tmp_path / "m.gguf", SOUND[case])
    assert check_gguf(path).architecture == "llama"
    assert llama_cpp_works(path)


# tensors that llama.cpp takes where they are there
OPTIONAL: dict[str, dict[str, object]] = {
    "biases, scales and factors": {
        "blk.0.attn_q.bias": (Type.F32, (N_EMBD,)),
        "blk.0.attn_output.bias": (Type.F32, (N_EMBD,)),
        "blk.0.attn_k.scale": (Type.F32, (1,)),
        "blk.0.ffn_down_exps.scale": (Type.F32, (N_EXPERT,)),
        "rope_freqs.weight": (Type.F32, (HEAD // 2,)),
    },
    "fused queries with biases of their own": {
        **{f"blk.0.attn_{one}.weight": None for one in "qkv"},
        "blk.0.attn_qkv.weight": (Type.F32, (N_EMBD + 2 * N_HEAD_KV * HEAD, N_EMBD)),
        "blk.0.attn_q.bias": (Type.F32, (N_EMBD,)),
    },
}


@pytest.mark.parametrize("case", OPTIONAL)
def test_optional_tensors_are_no_surplus(tmp_path: Path, case: str) -> None:
    path = changed(tmp_path / "m.gguf", {}, OPTIONAL[case])
    assert check_gguf(path).architecture == "llama"
    assert llama_cpp_works(path)


TOKENS = sound()[0]["tokenizer.ggml.tokens"].value

# what llama.cpp asserts, divides by, or throws about: (metadata, tensors, what the sentence must name)
BROKEN: dict[str, tuple[dict[str, Value | None], dict[str, object], str]] = {
    "no layers": ({"llama.block_count": u32(0)}, {}, "block_count is 0"),
    "too many layers": ({"llama.block_count": u32(513)}, {}, "block_count is 513"),
    "absurd layers": ({"llama.block_count": u32(0xFFFFFFFF)}, {}, "block_count"),
    "no block count": ({"llama.block_count": None}, {}, "block_count is missing"),
    "more experts used than there": ({"llama.expert_used_count": u32(5)}, {}, "expert_used_count is 5"),
    "no experts used": ({"llama.expert_used_count": u32(0)}, {}, "expert_used_count is 0"),
    "experts used is missing": ({"llama.expert_used_count": None}, {}, "expert_used_count is missing"),
    "absurd experts": ({"llama.expert_count": u32(1025)}, {}, "expert_count is 1025"),
    "experts used without experts": ({"llama.expert_count": u32(0)}, {}, "expert_used_count is 2"),
    "other number of experts": ({"llama.expert_count": u32(8)}, {}, "ffn_gate_inp"),
    "expert groups": ({"llama.expert_group_count": u32(4)}, {}, "expert_group_count is 4"),
    "groups that do not divide": ({"llama.expert_group_count": u32(3), "llama.expert_group_used_count": u32(1)}, {}, "must divide the 4 experts"),
    "no groups used": ({"llama.expert_group_count": u32(2)}, {}, "expert_group_used_count is missing"),
    "all groups used": ({"llama.expert_group_count": u32(2), "llama.expert_group_used_count": u32(2)}, {}, "expert_group_used_count is 2"),
    "a signed count": ({"llama.block_count": Value(Kind.INT32, 1)}, {}, "block_count is 1; it has type INT32"),
    "a long count": ({"llama.block_count": Value(Kind.UINT64, 1)}, {}, "it has type UINT64"),
    "a double": ({"llama.attention.layer_norm_rms_epsilon": Value(Kind.FLOAT64, 1e-5)}, {}, "it has type FLOAT64"),
    "a whole number for a float": ({"llama.attention.layer_norm_rms_epsilon": u32(1)}, {}, "epsilon is 1; it has type UINT32"),
    "heads for other layers": ({"llama.attention.head_count": i32s([N_HEAD] * 2)}, {}, "one whole number, or 1 of them"),
    "heads as floats": ({"llama.attention.head_count": f32s([N_HEAD])}, {}, "head_count is a list of 1 number"),
    "a width for each layer": ({"llama.embedding_length": i32s([N_EMBD])}, {}, "embedding_length is a list of 1 number"),
    "tokens as numbers": ({"tokenizer.ggml.tokens": i32s(list(range(262)))}, {}, "tokens must be an array of STRING, not INT32"),
    "tokens that are no array": ({"tokenizer.ggml.tokens": text("all")}, {}, "tokens must be an array of STRING, not STRING"),
    "scores in bytes": ({"tokenizer.ggml.scores": Value(Kind.ARRAY, [0] * 262, Kind.INT8)}, {}, "not INT8"),
    "scores as doubles": ({"tokenizer.ggml.scores": Value(Kind.ARRAY, [0.0] * 262, Kind.FLOAT64)}, {}, "not FLOAT64"),
    "scores as text": ({"tokenizer.ggml.scores": texts(["0"] * 262)}, {}, "not STRING"),
    "types in bytes": ({"tokenizer.ggml.token_type": Value(Kind.ARRAY, [1] * 262, Kind.UINT8)}, {}, "not UINT8"),
    "a token's id in words": ({"tokenizer.ggml.bos_token_id": text("<s>")}, {}, "bos_token_id is '<s>' of type STRING"),
    "a negative id": ({"tokenizer.ggml.bos_token_id": Value(Kind.INT32, -1)}, {}, "bos_token_id is -1 of type INT32"),
    "a flag that is a number": ({"tokenizer.ggml.add_bos_token": u32(1)}, {}, "add_bos_token is 1 of type UINT32"),
    "a pre-tokenizer's number": ({"tokenizer.ggml.pre": u32(1)}, {}, "must be STRING"),
    "a name that is a number": ({"general.name": u32(1)}, {}, "general.name is 1"),
    "a file type in words": ({"general.file_type": text("Q8_0")}, {}, "general.file_type is 'Q8_0'"),
    "a count of parts of another type": ({"split.count": u32(1)}, {}, "split.count is 1 of type UINT32"),
    "one prediction layer": ({"llama.nextn_predict_layers": u32(1)}, {}, "nextn_predict_layers is 1"),
    "prediction layers": ({"llama.nextn_predict_layers": u32(2)}, {}, "nextn_predict_layers is 2"),
    "no heads": ({"llama.attention.head_count": u32(0)}, {}, "head_count is 0"),
    "more heads than width": ({"llama.attention.head_count": u32(65)}, {}, "head_count"),
    "heads not divisible": ({"llama.attention.head_count_kv": u32(3)}, {}, "head_count_kv is 3"),
    "no kv heads": ({"llama.attention.head_count_kv": u32(0)}, {}, "head_count_kv is 0"),
    "head count is text": ({"llama.attention.head_count": text("4")}, {}, "head_count is '4'"),
    "rope dimensions": ({"llama.rope.dimension_count": u32(HEAD // 2)}, {}, "rope.dimension_count is 8"),
    "rope scaling": ({"llama.rope.scaling.type": text("magic")}, {}, "rope.scaling.type is 'magic'"),
    "value length": ({"llama.attention.value_length": u32(HEAD * 2)}, {}, "value_length is 32"),
    "no width": ({"llama.embedding_length": u32(0)}, {}, "embedding_length is 0"),
    "other width": ({"llama.embedding_length": u32(N_EMBD * 2)}, {}, "shape"),
    "no context length": ({"llama.context_length": None}, {}, "context_length is missing"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, {}, "epsilon is missing"),
    "no tokenizer": ({"tokenizer.ggml.model": None, "tokenizer.ggml.tokens": None}, {}, "no tokenizer"),
    "no tokens": ({"tokenizer.ggml.tokens": None}, {}, "no tokenizer"),
    "unknown tokenizer": ({"tokenizer.ggml.model": text("abacus")}, {}, "'abacus'"),
    "a token that C reads as another": ({"tokenizer.ggml.tokens": texts([*TOKENS[:-1], b"a\0b"])}, {}, "are duplicates"),
    "a token twice": ({"tokenizer.ggml.tokens": texts([*TOKENS[:-1], b"a"])}, {}, "are duplicates"),
    "no byte tokens": (
        {"tokenizer.ggml.tokens": texts([*TOKENS[:3], *(b"x%d" % i for i in range(256)), *TOKENS[259:]])},
        {},
        "byte tokens",
    ),
    "too few scores": ({"tokenizer.ggml.scores": f32s([0.0])}, {}, "scores"),
    "too few types": ({"tokenizer.ggml.token_type": i32s([1, 2])}, {}, "token_type"),
    "fewer tokens than rows": ({"tokenizer.ggml.tokens": texts(TOKENS[:-1])}, {}, "token_embd.weight"),
    "a missing tensor": ({}, {"blk.0.attn_v.weight": None}, "lacks the tensor blk.0.attn_v.weight"),
    "a missing router": ({}, {"blk.0.ffn_gate_inp.weight": None}, "blk.0.ffn_gate_inp.weight"),
    "a surplus tensor": ({}, {"blk.0.attn_sinks.weight": (Type.F32, (N_HEAD,))}, "has 1 tensor that a llama model does not have, such as 'blk.0.attn_sinks.weight'"),
    "two layers more": ({}, {"blk.7.attn_norm.weight": (Type.F32, (N_EMBD,)), "blk.8.attn_norm.weight": (Type.F32, (N_EMBD,))}, "has 2 tensors that"),
    "a wrong shape": ({}, {"blk.0.attn_k.weight": (Type.F32, (N_EMBD, N_EMBD))}, "(64, 64) instead of (32, 64)"),
    "a norm in 16 bits": ({}, {"blk.0.ffn_norm.weight": (Type.F16, (N_EMBD,))}, "must be F32"),
    "integers as weights": ({}, {"blk.0.attn_q.weight": (Type.I32, (N_EMBD, N_EMBD))}, "cannot multiply"),
    "another architecture": ({"general.architecture": text("clip")}, {}, "'clip' model"),
    "no architecture": ({"general.architecture": None}, {}, "architecture"),
    "experts of December 2023": (
        {},
        {"blk.0.ffn_up_exps.weight": None, **{f"blk.0.ffn_up.{e}.weight": (Type.F32, (N_FF, N_EMBD)) for e in range(N_EXPERT)}},
        "mixcli convert",
    ),
}  # fmt: skip


@pytest.mark.parametrize("context", [0, 1, 63])
def test_a_context_in_which_nothing_has_room(tmp_path: Path, context: int) -> None:
    """llama.cpp loads such a file, but no prompt fits and no --ctx could be asked for."""
    path = changed(tmp_path / "m.gguf", {"llama.context_length": u32(context)})
    with pytest.raises(
        IntegrityError, match=f"context_length is {context}; it must be a whole number from 64"
    ):
        check_gguf(path)


@pytest.mark.parametrize("alignment", [1, 2, 8, 16, 64])
def test_data_that_is_not_aligned_for_a_mapping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alignment: int
) -> None:
    monkeypatch.setattr("quantize.file_layout.ALIGNMENT", alignment)
    metadata, tensors = sound()
    entries = [(name, kind, shape, 0) for name, (kind, shape) in tensors.items()]
    begins = len(header_bytes({**metadata, "general.alignment": u32(alignment)}, entries))
    path = write(tmp_path / "m.gguf", {**metadata, "general.alignment": u32(alignment)}, tensors)
    works = begins % 32 == 0
    assert works or alignment < 32
    if not works:
        with pytest.raises(IntegrityError, match=f"aligned to {alignment} bytes.*mixcli convert"):
            check_gguf(path)
    else:
        check_gguf(path)
    assert llama_cpp_works(path) == works


@pytest.mark.parametrize("case", BROKEN)
def test_what_would_end_llama_cpp_is_refused_in_words(tmp_path: Path, case: str) -> None:
    metadata, tensors, words = BROKEN[case]
    path = changed(tmp_path / "m.gguf", metadata, tensors)
    with pytest.raises(IntegrityError) as caught:
        check_gguf(path)
    assert words in str(caught.value)
    assert "m.gguf" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 5
    assert not llama_cpp_works(path), "llama.cpp has no trouble with this file: preflight is too strict"


def test_files_that_are_something_else_or_cut(tmp_path: Path) -> None:
    whole = changed(tmp_path / "whole.gguf", {}).read_bytes()
    data_begins = len(whole) - sum(-(-4 * prod(shape) // 32) * 32 for _, shape in sound()[1].values())
    cases: dict[str, tuple[bytes, str]] = {
        "empty": (b"", "empty"),
        "three bytes": (whole[:3], "3 bytes"),
        "24 bytes": (whole[:24], "ends inside its header"),
        "inside the header": (whole[: data_begins // 2], "ends inside its header"),
        "one byte short": (whole[:-1], "missing"),
        "zeros": (bytes(len(whole)), "zero bytes"),
        "HTML": (b"<!DOCTYPE html><html><body>Sign in</body></html>" * 9, "HTML page"),
        "Git LFS": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n",
            "Git LFS pointer",
        ),
        "offset beyond the file": (_with_offset(tmp_path, 1 << 40), "offset"),
    }
    for case, (data, words) in cases.items():
        path = tmp_path / "case.gguf"
        path.write_bytes(data)
        with pytest.raises(IntegrityError) as caught:
            check_gguf(path)
        assert words in str(caught.value), case
        assert caught.value.exit_code == 5


def _with_offset(folder: Path, offset: int) -> bytes:
    metadata, tensors = sound()
    entries = [(name, kind, shape, offset) for name, (kind, shape) in tensors.items()]
    return header_bytes(metadata, entries) + bytes(64)


Shards = Callable[..., Path]


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Write the sound model in two parts; give the first."""

    def make(second: Mapping[str, Value] | None = None) -> Path:
        metadata, tensors = sound()
        items = list(tensors.items())
        split = {"split.count": u16(2), "split.tensors.count": u32(len(items))}
        first = tmp_path / "m-00001-of-00002.gguf"
        write(first, {**metadata, **split, "split.no": u16(0)}, dict(items[:6]))
        write(
            tmp_path / "m-00002-of-00002.gguf",
            {"general.architecture": text("llama"), **split, "split.no": u16(1), **(second or {})},
            dict(items[6:]),
        )
        return first

    return make


def test_all_parts_of_a_split_model_are_seen(shards: Shards) -> None:
    header = check_gguf(shards())
    assert len(header.tensors) == len(sound()[1])


def test_a_missing_a_foreign_and_a_later_part(shards: Shards) -> None:
    first = shards({"split.no": u16(0)})
    with pytest.raises(IntegrityError, match="does not belong"):
        check_gguf(first)
    second = shards().with_name("m-00002-of-00002.gguf")
    assert len(check_gguf(second).tensors) == len(sound()[1])
    second.unlink()
    with pytest.raises(IntegrityError, match=r"m-00002-of-00002\.gguf is missing: it is shard 2 of 2"):
        check_gguf(first)
    renamed = first.rename(first.with_name("other.gguf"))
    with pytest.raises(IntegrityError, match="rename it"):
        check_gguf(renamed)


def test_a_real_model_passes(smol_path: Path) -> None:
    assert len(check_gguf(smol_path).tensors) == 272


def test_preflight_needs_neither_numpy_nor_llama_cpp() -> None:
    code = (
        "import sys, mixcli.store.preflight; print(sorted({'numpy', 'llama_cpp', 'gguf'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "[]"


def test_flags_are_no_numbers(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="block_count is true"):
        check_gguf(changed(tmp_path / "m.gguf", {"llama.block_count": flag(True)}))
