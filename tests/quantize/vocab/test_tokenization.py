"""The vocabularies that quantize/ writes, judged by what counts: llama.cpp's tokenizer gives what mistral_common gives."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jinja2.sandbox
import pytest
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.base import SpecialTokenPolicy
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from quantize.source import Value, text
from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source
from quantize.vocab.mistral_jinja import BY_VERSION
from quantize.vocab.spm import spm_vocabulary_from_json
from quantize.vocab.tekken import tekken_vocabulary
from tests.quantize.vocab.corpus import lines
from tests.quantize.vocab.llama_vocab import LlamaVocab, loaded, write_vocabulary
from tests.support.checkpoints import TOKENIZERS, write_checkpoint, write_json, write_native

VERSIONS = tuple(TOKENIZERS)
Loaded = tuple[LlamaVocab, dict[str, Value], MistralTokenizer]


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Loaded]]:
    """Each tokenizer in llama.cpp, its metadata, and mistral_common's own."""
    folder = tmp_path_factory.mktemp("vocabularies")
    found: dict[str, Loaded] = {}
    with ExitStack() as stack:
        for version, path in TOKENIZERS.items():
            source = write_native(
                folder / f"instruct-{version}", tokenizer=version, n_layer=1, n_embd=8, n_ff=8
            )
            metadata = dict(model_source(open_checkpoint(source)).metadata)
            file = write_vocabulary(folder / f"{version}.gguf", metadata)
            reference = MistralTokenizer.v1() if version == "v1" else MistralTokenizer.from_file(str(path))
            found[version] = stack.enter_context(loaded(file)), metadata, reference
        yield found


def test_the_corpus_is_what_it_is_said_to_be() -> None:
    assert len(lines()) >= 2000
    text = "".join(lines())
    assert all(mark in text for mark in "éßñè¿😀→漢") and "\U000f0000" in text


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_text_becomes_the_reference_tokens(version: str, vocabularies: dict[str, Loaded]) -> None:
    vocab, _, reference = vocabularies[version]
    encode = reference.instruct_tokenizer.tokenizer.encode
    differing = [line for line in lines() if vocab.encode(line) != encode(line, bos=False, eos=False)]
    assert differing == []


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_text_never_becomes_a_control_token(version: str, vocabularies: dict[str, Loaded]) -> None:
    vocab, _, _ = vocabularies[version]
    assert any(vocab.is_control(index) for index in vocab.encode("<s>", special=True))
    assert not [line for line in lines() if any(map(vocab.is_control, vocab.encode(line)))]


CONVERSATIONS = (
    [("user", "Bonjour!")],
    [("user", "1 + 1 = ?"), ("assistant", "2"), ("user", "Und weiter, größer?")],
    [("system", "Sé breve."), ("user", "¿Quién eres?"), ("assistant", "Nadie."), ("user", "Perché?\nDimmi.")],
    [("user", "  two spaces  "), ("assistant", " one space"), ("user", "\nnewline first")],
)
MESSAGES = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("conversation", CONVERSATIONS)
def test_the_template_of_a_version_encodes_a_conversation_as_the_reference(
    version: str, conversation: list[tuple[str, str]], vocabularies: dict[str, Loaded]
) -> None:
    vocab, metadata, reference = vocabularies[version]
    messages: list[Any] = [MESSAGES[role](content=content) for role, content in conversation]
    expected = reference.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens
    assert vocab.encode(_render(metadata, conversation), special=True) == expected


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v7", "v11", "v13"])
def test_later_versions_of_tekken_share_the_template_of_v7(version: str, tmp_path: Path) -> None:
    """No such file comes with mistral_common; one is made of an older file and the special tokens that they list."""
    file = json.loads(TOKENIZERS["tekken-240718"].read_text())
    old = tekken_vocabulary(TOKENIZERS["tekken-240718"], None)[0].tokens[:20]
    names = [*(token.decode() for token in old), "[ARGS]", "[CALL_ID]", "[THINK]", "[/THINK]"]
    special = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(names)]
    file |= {"special_tokens": special, "config": {**file["config"], "version": version}}
    write_json(tmp_path / "tekken.json", file)
    reference = MistralTokenizer.from_file(str(tmp_path / "tekken.json"))
    assert tekken_vocabulary(tmp_path / "tekken.json", None)[1] == version
    for conversation in CONVERSATIONS:
        messages: list[Any] = [MESSAGES[role](content=content) for role, content in conversation]
        tokens = reference.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens
        expected = reference.decode(tokens, special_token_policy=SpecialTokenPolicy.KEEP)
        assert _render({"tokenizer.chat_template": text(BY_VERSION[version])}, conversation) == expected


def test_a_template_refuses_a_role_that_it_has_no_words_for(vocabularies: dict[str, Loaded]) -> None:
    with pytest.raises(RuntimeError, match="roles are user and assistant"):
        _render(vocabularies["v3"][1], [("tool", "42")])


def _render(metadata: dict[str, Value], conversation: list[tuple[str, str]]) -> str:
    def refuse(message: str) -> None:
        raise RuntimeError(message)

    template = jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(
        metadata["tokenizer.chat_template"].value
    )
    messages = [{"role": role, "content": content} for role, content in conversation]
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", raise_exception=refuse)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v3"])
def test_scores_come_back_from_the_merges_of_a_tokenizer_json(version: str, tmp_path: Path) -> None:
    """What transformers makes of a SentencePiece model has merges and no scores; the tokens must be the same all the same."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(str(TOKENIZERS[version]))
    pieces = [model.IdToPiece(i) for i in range(model.vocab_size())]
    normal = {
        piece: i for i, piece in enumerate(pieces) if not (model.IsControl(i) or model.IsByte(i) or i == 0)
    }
    merges = []
    for piece, index in normal.items():
        ways = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        ways = [(left, right) for left, right in ways if left in normal and right in normal]
        merges += [
            (-model.GetScore(index), normal[left], normal[right], [left, right]) for left, right in ways
        ]
    added = [
        {"id": i, "content": piece, "special": True}
        for i, piece in enumerate(pieces)
        if model.IsControl(i) or i == 0
    ]
    tokenizer = {
        "added_tokens": added,
        "model": {
            "type": "BPE",
            "byte_fallback": True,
            "unk_token": "<unk>",
            "vocab": {piece: i for i, piece in enumerate(pieces)},
            "merges": [merge for *_, merge in sorted(merges)],
        },
    }
    vocabulary = spm_vocabulary_from_json(tokenizer, None, "tokenizer.json")
    folder = write_checkpoint(tmp_path / "m", tokenizer=version, n_layer=1, n_embd=8, n_ff=8)
    metadata = {**model_source(open_checkpoint(folder)).metadata, **vocabulary.metadata()}
    reference = (
        MistralTokenizer.from_file(str(TOKENIZERS[version])) if version != "v1" else MistralTokenizer.v1()
    )
    encode = reference.instruct_tokenizer.tokenizer.encode
    with loaded(write_vocabulary(tmp_path / "v.gguf", metadata)) as vocab:
        assert not [line for line in lines() if vocab.encode(line) != encode(line, bos=False, eos=False)]
