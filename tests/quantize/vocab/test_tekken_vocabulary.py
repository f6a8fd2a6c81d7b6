"""Tekken files become vocabularies, or are refused by name."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from quantize.errors import CorruptFile, QuantizeError, Unsupported
from quantize.vocab.tekken import printable, tekken_vocabulary
from tests.support.checkpoints import TOKENIZERS, write_json


def small_tekken(**changes: Any) -> dict[str, Any]:
    tokens = [bytes([i]) for i in range(256)] + [b"ab", b" a", b"abab"]
    entries = [
        {"rank": i, "token_bytes": base64.b64encode(t).decode(), "token_str": None}
        for i, t in enumerate(tokens)
    ]
    real = json.loads(TOKENIZERS["tekken-240911"].read_text())["config"]
    config = {**real, "default_vocab_size": 289, "default_num_special_tokens": 30, "num_vocab_tokens": 259}
    return {"config": {**config, **changes.pop("config", {})}, "vocab": entries, **changes}


def tekken(path: Path, file: dict[str, Any], n_vocab: int | None = None) -> Any:
    write_json(path / "tekken.json", file)
    return tekken_vocabulary(path / "tekken.json", n_vocab)


def test_tekken_ranks_become_tokens_and_merges(tmp_path: Path) -> None:
    found, version = tekken(tmp_path, small_tekken(), 290)
    assert (found.pre, version, len(found.tokens)) == ("tekken", "v3", 290)
    assert found.tokens[:4] == (b"<unk>", b"<s>", b"</s>", b"[INST]")
    assert found.tokens[28:31] == (b"<SPECIAL_28>", b"<SPECIAL_29>", "Ā".encode())
    assert found.tokens[-4:] == (b"ab", "Ġa".encode(), b"abab", b"[PAD289]")
    assert found.merges == ("a b", "Ġ a", "ab ab")


def test_tekken_files_may_list_their_special_tokens(tmp_path: Path) -> None:
    special = [{"rank": 1, "token_str": "<begin>", "is_control": True}]
    found, _ = tekken(tmp_path, small_tekken(special_tokens=special))
    assert found.tokens[:3] == (b"<SPECIAL_0>", b"<begin>", b"<SPECIAL_2>")


def test_bytes_are_written_as_printable_characters() -> None:
    text = printable(bytes(range(256)))
    assert len(set(text)) == 256 and text.isprintable() and " " not in text
    assert (printable(b" a\n"), printable(b"\xc3\xa9"), printable(b"\xad")) == ("ĠaĊ", "Ã©", "Ń")


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"config": {"pattern": ".+"}}, Unsupported, "a pattern that llama.cpp does not support"),
        ({"config": {"default_vocab_size": 0}}, CorruptFile, "default_vocab_size = 0"),
        ({"config": {"default_vocab_size": 1 << 40}}, CorruptFile, "default_vocab_size"),
        ({"config": {"default_vocab_size": 1000}}, CorruptFile, "declares 970 tokens but lists 259"),
        ({"vocab": {}}, CorruptFile, "no config or no vocab"),
        ({"vocab": [{"rank": 0}] * 300}, CorruptFile, "without rank or bytes"),
        ({"vocab": [{"rank": i, "token_bytes": "YQ=="} for i in range(300)]}, CorruptFile, "a token twice"),
        ({"special_tokens": [{"rank": 99, "token_str": "x"}]}, CorruptFile, "has the invalid special token"),
        ({"special_tokens": {"x": 1}}, CorruptFile, "has the invalid special token"),
    ],
)
def test_a_broken_tekken_file_is_refused(
    changes: dict[str, Any], kind: type[QuantizeError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=words):
        tekken(tmp_path, small_tekken(**changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"default_num_special_tokens": 1 << 22}, "4,194,304 special tokens among 131072"),
        ({"default_vocab_size": 1 << 40}, "default_vocab_size = 1099511627776"),
        ({"default_vocab_size": True}, "default_vocab_size = true"),
    ],
)
def test_counts_of_a_tekken_file_are_claims(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = json.loads(TOKENIZERS["tekken-240718"].read_text())
    write_json(tmp_path / "tekken.json", {**file, "config": {**file["config"], **change}})
    with pytest.raises(CorruptFile, match=words):
        tekken_vocabulary(tmp_path / "tekken.json", 131072)


def test_a_token_of_a_million_bytes_is_refused_before_it_is_cut(tmp_path: Path) -> None:
    file = json.loads(TOKENIZERS["tekken-240718"].read_text())
    file["vocab"][300]["token_bytes"] = base64.b64encode(b"ab" * 500_000).decode()
    write_json(tmp_path / "tekken.json", file)
    with pytest.raises(CorruptFile, match="a token of 1,000,000 bytes"):
        tekken_vocabulary(tmp_path / "tekken.json", 131072)
