"""Byte-level vocabularies become those of a GGUF and back, or are refused by name."""

import json
from typing import Any

import pytest

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.vocab.bpe import bpe_vocabulary, tokenizer_json
from quantize.vocab.pretokenizer import STEPS, pretokenizer_json, pretokenizer_name
from tests.quantize.vocab.small_bpe import small_bpe


def test_a_byte_level_vocabulary_is_read() -> None:
    found = bpe_vocabulary(small_bpe(), 9, "tokenizer.json")
    assert (found.model, found.pre, found.merges) == ("gpt2", "gpt-2", ("a b", "Ġ a"))
    assert found.tokens[4:] == (b"ab", "Ġa".encode(), b"<|im_start|>", b" word", b"[PAD8]")
    assert [int(kind) for kind in found.types] == [3, 1, 1, 1, 1, 1, 3, 4, 5]


def test_merges_as_pairs_are_the_same_merges() -> None:
    model = {**small_bpe()["model"], "merges": [["a", "b"], [" ", "a"]]}
    assert bpe_vocabulary(small_bpe(model=model), None, "t").merges == ("a b", "Ġ a")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"model": None}, CorruptFile, "no model"),
        ({"model": {"type": "Unigram", "vocab": []}}, Unsupported, "holds a Unigram tokenizer"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, CorruptFile, "no vocabulary"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, CorruptFile, "the id -1"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 1, "b": 1}, "merges": []}},
            CorruptFile,
            "the id 1 for token 'b', which is duplicate",
        ),
        (
            {"model": {"type": "BPE", "vocab": {"a": 1 << 60}, "merges": []}},
            CorruptFile,
            "which is duplicate or invalid",
        ),
        ({"model": {"type": "BPE", "vocab": {"a": 0}}}, CorruptFile, "no merges"),
        (
            {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}},
            CorruptFile,
            "merges in an unknown format",
        ),
        ({"added_tokens": {"a": 1}}, CorruptFile, "not a list"),
        ({"added_tokens": [{"id": "x", "content": "y"}]}, CorruptFile, "without text or id"),
        ({"pre_tokenizer": None}, Unsupported, "uses an unsupported pre-tokenizer \\(null\\)"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, Unsupported, "Whitespace.*supported are smollm, gpt-2"),
    ],
)
def test_a_broken_or_foreign_tokenizer_json_is_refused(
    changes: dict[str, Any], kind: type[QuantizeError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        bpe_vocabulary(small_bpe(**changes), None, "tokenizer.json")


def test_more_tokens_than_rows_are_refused() -> None:
    with pytest.raises(CorruptFile, match="8 tokens, the embedding has 7 rows"):
        bpe_vocabulary(small_bpe(), 7, "tokenizer.json")


@pytest.mark.parametrize("name", STEPS)
def test_a_pre_tokenizer_is_known_by_its_structure(name: str) -> None:
    written = pretokenizer_json(name, "t")
    assert pretokenizer_name(written, "t") == name
    terse = json.loads(
        json.dumps(written).replace(', "trim_offsets": true', "").replace(', "invert": false', "")
    )
    assert pretokenizer_name(terse, "t") == name


def test_a_tokenizer_json_that_is_rebuilt_is_read_back_the_same() -> None:
    read = bpe_vocabulary(small_bpe(), 9, "t")
    tokens, types = [token.decode() for token in read.tokens], [int(kind) for kind in read.types]
    rebuilt = tokenizer_json(tokens, types, read.merges or (), read.pre, "<|endoftext|>", "t")
    assert bpe_vocabulary(rebuilt, 9, "t") == read
    assert rebuilt["post_processor"]["special_tokens"]["<|endoftext|>"]["ids"] == [0]
    with pytest.raises(CorruptFile, match="a token twice"):
        tokenizer_json(["a", "a"], [1, 1], [], "gpt-2", None, "t")


def test_a_pre_tokenizer_that_differs_in_one_flag_is_another() -> None:
    other = {**STEPS["gpt-2"][0], "add_prefix_space": True}
    with pytest.raises(Unsupported):
        pretokenizer_name(other, "t")
