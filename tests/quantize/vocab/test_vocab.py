"""Vocabularies: what comes out of each kind of tokenizer file, and what is refused."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.source import Value
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source
from quantize.vocab.sentencepiece_model import read_sentencepiece
from quantize.vocab.vocabulary import TokenType
from tests.quantize.vocab.llama_vocab import loaded, write_vocabulary
from tests.quantize.vocab.small_bpe import small_bpe
from tests.support.checkpoints import TOKENIZERS, write_checkpoint, write_json, write_native, write_tokenizer

TINY: dict[str, Any] = {"n_layer": 1, "n_embd": 8, "n_ff": 8, "n_expert": 2}
TINY_NATIVE: dict[str, Any] = {**TINY, "n_expert": 0}


def metadata(folder: Path) -> dict[str, Value]:
    return dict(model_source(open_checkpoint(folder)).metadata)


def change(path: Path, **changes: Any) -> None:
    write_json(path, {**json.loads(path.read_text()), **changes})


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v7"])
def test_sentencepiece_models_are_read_as_the_library_reads_them(version: str) -> None:
    pieces = read_sentencepiece(TOKENIZERS[version])
    model = SentencePieceProcessor(str(TOKENIZERS[version]))
    assert len(pieces) == model.vocab_size()
    for i, piece in enumerate(pieces):
        assert (piece.text.decode(), piece.score) == (model.IdToPiece(i), model.GetScore(i))
        assert (piece.type is TokenType.CONTROL) == model.IsControl(i)
        assert (piece.type is TokenType.BYTE) == model.IsByte(i)
        assert (piece.type is TokenType.UNKNOWN) == model.IsUnknown(i)


@pytest.mark.parametrize(
    ("raw", "kind", "words"),
    [
        (b"", CorruptFile, "it has no pieces"),
        (b"<html>", CorruptFile, "not a SentencePiece model"),
        (b"version https://git-lfs.github.com/spec/v1\n", CorruptFile, "is a Git LFS pointer"),
        (b"\x0a\xff\xff\xff\xff\x0f", CorruptFile, "is truncated"),
        (b"\x0a" + b"\xff" * 12, CorruptFile, "is too long"),
        (b"\x0a\x03\x0a\x01\xff", CorruptFile, "not a SentencePiece model"),
        (b"\x0a\x02\x18\x63", CorruptFile, "not a SentencePiece model"),
        (b"\x0a\x03\x0a\x01a", Unsupported, "of type 1, but only the byte-pair type"),
        (b"\x0a\x03\x0a\x01a\x12\x02\x18\x04", Unsupported, "of type 4, but"),
    ],
)
def test_a_broken_sentencepiece_model_is_refused(
    raw: bytes, kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(raw)
    with pytest.raises(kind, match=words):
        read_sentencepiece(tmp_path / "tokenizer.model")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_no_bytes_at_all_make_the_sentencepiece_reader_stumble(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.model"
    path.write_bytes(raw)
    with pytest.raises(QuantizeError):
        read_sentencepiece(path)


def test_a_cut_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    raw = TOKENIZERS["v1"].read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(CorruptFile, match="not a SentencePiece model"):
        read_sentencepiece(tmp_path / "tokenizer.model")


def dolphin(folder: Path, decoder: bool) -> dict[str, Value]:
    """ChatML tokens after the 32,000 of the model and one row that nothing names."""
    write_checkpoint(folder, n_vocab=32003, **TINY, config={"eos_token_id": 32000})
    write_json(folder / "added_tokens.json", {"<|im_end|>": 32000, "<|im_start|>": 32001})
    if decoder:
        entries = {
            "32000": {"content": "<|im_end|>", "special": True},
            "32001": {"content": "<|im_start|>", "special": False},
        }
        change(folder / "tokenizer_config.json", added_tokens_decoder=entries)
    return metadata(folder)


@pytest.mark.parametrize("decoder", [True, False])
def test_chatml_markers_are_control_tokens_and_rows_without_a_token_are_padded(
    decoder: bool, tmp_path: Path
) -> None:
    found = dolphin(tmp_path / "m", decoder)
    assert found["tokenizer.ggml.tokens"].value[32000:] == [b"<|im_end|>", b"<|im_start|>", b"[PAD32002]"]
    control, unused = TokenType.CONTROL, TokenType.UNUSED
    assert found["tokenizer.ggml.token_type"].value[32000:] == [control, control, unused]
    assert found["tokenizer.ggml.eos_token_id"].value == 32000
    with loaded(write_vocabulary(tmp_path / "v.gguf", found)) as vocab:
        assert vocab.n_tokens == 32003
        assert vocab.encode("<|im_start|>user", special=True)[0] == 32001
        assert 32001 not in vocab.encode("<|im_start|>user")
        assert vocab.ends_generation(32000)


def test_an_added_token_that_is_text_is_matched_in_text(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_vocab=32001, **TINY)
    change(
        folder / "tokenizer_config.json",
        added_tokens_decoder={"32000": {"content": "▁tool", "special": False}},
    )
    found = metadata(folder)
    assert found["tokenizer.ggml.tokens"].value[32000] == b" tool"
    assert found["tokenizer.ggml.token_type"].value[32000] == TokenType.USER_DEFINED


def test_an_added_token_beyond_the_embedding_is_left_out(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **TINY)
    write_json(folder / "added_tokens.json", {"<pad>": 32000})
    assert len(metadata(folder)["tokenizer.ggml.tokens"].value) == 32000


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", n_vocab=31999, **TINY)
    with pytest.raises(CorruptFile, match="32,000 tokens, the embedding has 31,999 rows"):
        metadata(folder)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("added_tokens.json", '{"x": "y"}'),
        ("added_tokens.json", '{"x": -1}'),
        ("added_tokens.json", "[]"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "y"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": "y"}}'),
        ("tokenizer_config.json", "{"),
        ("config.json", '{"architectures": ["MixtralForCausalLM"], "bos_token_id": -5}'),
    ],
)
def test_broken_added_tokens_are_refused(name: str, text: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **TINY)
    if name == "config.json":
        change(folder / name, **json.loads(text))
    else:
        (folder / name).write_text(text)
    with pytest.raises(CorruptFile, match="download it again"):
        metadata(folder)


@pytest.mark.slow
def test_the_template_of_the_tokenizer_configuration_comes_first(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **TINY)
    (folder / "chat_template.jinja").write_text("from the file")
    change(folder / "tokenizer_config.json", chat_template="from the configuration")
    assert metadata(folder)["tokenizer.chat_template"].value == "from the configuration"
    several = [{"name": "default", "template": "d"}, {"name": "tool use", "template": "t"}, {"name": 5}]
    change(folder / "tokenizer_config.json", chat_template=several)
    found = metadata(folder)
    assert found["tokenizer.chat_template"].value == "d"
    assert found["tokenizer.chat_template.tool_use"].value == "t"
    assert found["tokenizer.chat_templates"].value == ["tool_use"]
    change(folder / "tokenizer_config.json", chat_template={"default": "d", "tool use": "t"})
    assert metadata(folder)["tokenizer.chat_template.tool_use"].value == "t"
    assert metadata(folder)["tokenizer.chat_template"].value == "d"
    write_json(folder / "tokenizer_config.json", {})
    assert metadata(folder)["tokenizer.chat_template"].value == "from the file"


@pytest.mark.parametrize("layout", [write_checkpoint, write_native])
@pytest.mark.parametrize(
    ("name", "version", "has_one"),
    [
        ("Mistral-7B-v0.3", "v3", False),
        ("Mistral-7B-Instruct-v0.3", "v3", True),
        ("Mixtral-8x22B-v0.1", "v3", False),
        ("mixtral-8x22b-instruct", "v3", True),
        ("Mistral-Small-24B-Base-2501", "v7", False),
        ("Small-Instruct-Base", "v7", False),
        ("Codestral-22B-v0.1", "v3", True),
        ("my-fine-tune", "v3", False),
        ("chat-7b-v1", "v7", True),
        ("unit", "v3", False),
    ],
)
def test_a_template_of_mistral_is_for_models_that_are_called_so(
    tmp_path: Path, layout: Callable[..., Path], name: str, version: str, has_one: bool
) -> None:
    """A base model has the same tokenizer, and its vectors of [INST] were never trained."""
    folder = layout(
        tmp_path / name, tokenizer=version, **(TINY if layout is write_checkpoint else TINY_NATIVE)
    )
    if layout is write_checkpoint:
        write_json(folder / "tokenizer_config.json", {})
    source = model_source(open_checkpoint(folder))
    assert ("tokenizer.chat_template" in source.metadata) == has_one
    (note,) = source.notes
    assert ("using Mistral's own" if has_one else "treated as a base model") in note


def test_the_name_of_a_repository_counts_and_a_template_that_is_there_always_does(tmp_path: Path) -> None:
    place = tmp_path / "models--mistralai--Mistral-7B-Instruct-v0.3" / "snapshots" / ("c0ffee" * 6)
    cached = write_checkpoint(place, tokenizer="v3", **TINY)
    write_json(cached / "tokenizer_config.json", {})
    assert "tokenizer.chat_template" in metadata(cached)
    base = write_checkpoint(tmp_path / "Some-Base", tokenizer="v3", **TINY)
    source = model_source(open_checkpoint(base))
    assert source.metadata["tokenizer.chat_template"].value.startswith("{% for m in messages %}")
    assert source.notes == ()


def test_a_version_without_markers_never_gets_a_template_in_a_hugging_face_folder(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "Any-Instruct", tokenizer="v1", **TINY)
    write_json(folder / "tokenizer_config.json", {})
    source = model_source(open_checkpoint(folder))
    assert "tokenizer.chat_template" not in source.metadata
    assert "will continue text" in source.notes[0]


def test_special_ids_come_from_every_file_that_names_them(tmp_path: Path) -> None:
    folder = write_checkpoint(
        tmp_path / "m", tokenizer=None, n_vocab=9, **TINY, config={"pad_token_id": 4, "eos_token_id": 1}
    )
    write_json(folder / "tokenizer.json", small_bpe(post_processor={"type": "ByteLevel"}))
    write_json(
        folder / "tokenizer_config.json",
        {"eos_token": {"content": "<|im_start|>"}, "unk_token": "<|endoftext|>", "add_bos_token": True},
    )
    found = {key.removeprefix("tokenizer.ggml."): value.value for key, value in metadata(folder).items()}
    assert (found["eos_token_id"], found["unknown_token_id"]) == (6, 0)
    assert (found["padding_token_id"], found["bos_token_id"]) == (4, 1)
    assert (found["add_bos_token"], found["add_eos_token"]) == (
        False,
        False,
    )  # what the post-processor really does


def test_a_post_processor_that_puts_a_token_first_adds_bos(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", tokenizer=None, n_vocab=9, **TINY)
    single = [{"SpecialToken": {"id": "<|endoftext|>"}}, {"Sequence": {"id": "A"}}]
    write_json(
        folder / "tokenizer.json", small_bpe(post_processor={"type": "TemplateProcessing", "single": single})
    )
    write_json(folder / "tokenizer_config.json", {"bos_token": "<|endoftext|>"})
    found = metadata(folder)
    assert found["tokenizer.ggml.add_bos_token"].value is True
    assert "tokenizer.ggml.add_eos_token" not in found


def test_a_folder_with_a_versioned_sentencepiece_file_takes_the_newest(tmp_path: Path) -> None:
    from tests.support.checkpoints import write_native

    folder = write_native(tmp_path / "m", tokenizer="v3", n_layer=1, n_embd=8, n_ff=8)
    (folder / "tokenizer.model.v2").write_bytes(b"older")
    (folder / "tokenizer.model").write_bytes(b"oldest")
    found = metadata(folder)
    assert found["tokenizer.ggml.tokens"].value[11] == b"[PREFIX]"
    assert [
        found[f"tokenizer.ggml.{kind}_token_id"].value for kind in ("bos", "eos", "unknown", "padding")
    ] == [1, 2, 0, 2]


def test_scores_and_types_lie_where_tokens_do(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", **TINY)
    write_tokenizer(folder, "v1")
    found = metadata(folder)
    assert struct.pack("<f", found["tokenizer.ggml.scores"].value[31999]) == struct.pack("<f", -31740.0)
    assert found["tokenizer.ggml.token_type"].value[:4] == [2, 3, 3, 6]


def _varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _piece(text: bytes, score: float) -> bytes:
    return _field(1, _field(1, text) + b"\x15" + struct.pack("<f", score))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (_field(1, b"") * ((1 << 20) + 1), "more than 1,048,576 pieces"),
        (_piece(b"a", float("nan")), "a score is nan"),
        (_piece(b"a", float("inf")), "a score is inf"),
        (_field(1, _field(1, b"\xff")), "not a SentencePiece model"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "is truncated"),
    ],
)
def test_a_sentencepiece_model_that_would_take_memory_or_order(
    raw: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(raw)
    with pytest.raises(CorruptFile, match=words):
        read_sentencepiece(tmp_path / "tokenizer.model")


ODD_FILES: dict[str, tuple[str, Any, str | None]] = {
    "added tokens that are numbers": ("tokenizer.json", {"added_tokens": [5]}, "without text or id"),
    "an id in words": ("tokenizer.json", {"added_tokens": [{"content": "<s>", "id": "1"}]}, "without text or id"),
    "a post-processor of words": ("tokenizer.json", {"post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": "x"}, {}]}}, None),
    "processors that are no list": ("tokenizer.json", {"post_processor": {"processors": 7}}, None),
    "an id beyond any": ("added_tokens.json", {"x": 1 << 60}, "the invalid id"),
    "a flag for an id": ("added_tokens.json", {"x": True}, "the invalid id true"),
    "a key of many digits": ("tokenizer_config.json", {"added_tokens_decoder": {"9" * 5000: {"content": "x"}}}, "in an unknown format"),
    "a template that is a number": ("tokenizer_config.json", {"chat_template": 7}, None),
    "a template of null": ("tokenizer_config.json", {"chat_template": None}, None),
    "names that are lists": ("tokenizer_config.json", {"bos_token": ["<s>"], "eos_token": {"content": 5}}, None),
    "no padding, as of old": ("config.json", {"pad_token_id": -1}, None),
    "several ends": ("config.json", {"eos_token_id": [1, 2]}, None),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_FILES)
def test_odd_tokenizer_files_are_read_or_refused_by_name(case: str, tmp_path: Path) -> None:
    name, value, words = ODD_FILES[case]
    folder = write_checkpoint(tmp_path / "m", tokenizer="v3", **TINY)
    before = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    write_json(folder / name, {**before, **value})
    if words is None:
        assert len(metadata(folder)["tokenizer.ggml.tokens"].value) == 32768
        return
    with pytest.raises(CorruptFile, match=words) as caught:
        metadata(folder)
    assert name in str(caught.value)


def test_a_vocabulary_that_claims_more_than_the_embedding_is_never_built(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", tokenizer=None, n_vocab=96, **TINY)
    model = {"type": "BPE", "byte_fallback": True, "vocab": {"a": 0, "b": (1 << 22) - 1}, "merges": []}
    write_json(folder / "tokenizer.json", {"model": model})
    tracemalloc.start()
    try:
        with pytest.raises(CorruptFile, match="has 4,194,304 tokens, the embedding has 96 rows"):
            metadata(folder)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()
