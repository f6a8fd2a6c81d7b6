"""Tokenize user text so that it never becomes a control token.

llama.cpp is asked not to look for special tokens, but three ways to one stay open, and this module closes them:

- its SentencePiece tokenizer merges characters into any vocabulary entry, control and byte tokens included, where SentencePiece
  itself leaves those out ("</s>" can become the end of the sequence, "<0x0A>" a line feed);
- a GGUF may declare chat markers such as <|im_start|> USER_DEFINED, which are matched in any text;
- BPE vocabularies that skip merges for whole words can hit a control token that way.

Ordinary text takes the fast path through llama.cpp; the others are only taken where a reserved text occurs. Tekken has a
tokenizer of its own (tekken.py). The time is linear in the length of any text: long ones are cut where that changes no token.
"""

import re
from collections.abc import Callable, Iterable
from functools import cached_property

from mixcli.llama.model import Vocab
from mixcli.prompts.sentencepiece_bpe import CHUNK, REFERENCES, SentencePieces

# How chat markers look in published vocabularies; a template's own markers are passed in by name.
_MARKER = re.compile(r"<\|.+\|>|\[/?[A-Z_]+\]|</?s>|<(start|end)_of_\w+>", re.DOTALL)
# Where any BPE pattern cuts: before a single blank between two words
_BETWEEN_WORDS = re.compile(r"(?<=\S)(?= \S)")
_LAST_BETWEEN_WORDS = re.compile(r"(?s).*\S(?= \S)")
# llama.cpp runs the patterns of other vocabularies by std::regex, whose stack overflows at some ten thousand characters of one word
_LONGEST_WORD = 4096
_SAFE_PATTERNS = ("gpt-2", "smollm", "llama-bpe", "qwen2")


def _any_of(texts: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


class ContentTokenizer:
    """Tokenizes text for one vocabulary; `template` is the chat template, whose markers are reserved too."""

    def __init__(self, vocab: Vocab, template: str = "") -> None:
        self._vocab = vocab
        bits = {token: vocab.attributes(token) for token in vocab.specials.values()}
        self.reserved = {
            token: text
            for text, token in vocab.specials.items()
            if bits[token] & (Vocab.CONTROL | Vocab.UNKNOWN)
            or (_MARKER.fullmatch(text) and not (vocab.is_sentencepiece and REFERENCES.fullmatch(text)))
            or (text in template and len(text) > 1)
        }
        self.literal = _any_of(vocab.specials)  # special texts, as a template may write them
        self._matched_anyway = _any_of(t for i, t in self.reserved.items() if bits[i] & Vocab.USER_DEFINED)
        self._all_reserved = _any_of(self.reserved.values())
        self._added = {
            text: token
            for text, token in vocab.specials.items()
            if token not in self.reserved and not (vocab.is_sentencepiece and REFERENCES.fullmatch(text))
        }
        self._any_added = _any_of(self._added)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, none of which is reserved; a lone surrogate counts as U+FFFD."""
        if not text.isascii():
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return self._encode(text) if text else []

    def encode_rest(self, text: str) -> list[int]:
        """Return the token ids of a text that continues another one: SentencePiece puts no space before it."""
        if not text or not self._vocab.is_sentencepiece:
            return self.encode(text)
        return self._encode_chunk(text, is_start=False)

    def split_literal(self, text: str) -> list[int | str]:
        """Split a template's own text: its special tokens become ids, the rest stays text."""
        if self.literal is None:
            return [text] if text else []
        parts: list[int | str] = []
        end = 0
        for match in self.literal.finditer(text):
            parts += [text[end : match.start()], self._vocab.specials[match.group()]]
            end = match.end()
        return [part for part in [*parts, text[end:]] if part != ""]

    @cached_property
    def _encode(self) -> Callable[[str], list[int]]:
        if self._vocab.is_sentencepiece:
            return self._encode_pieces
        if self._vocab.pretokenizer == "tekken" and (tekken := self._tekken()):
            return tekken
        return self._encode_bpe

    # Byte-pair encoding by llama.cpp

    def _encode_bpe(self, text: str) -> list[int]:
        ids = self._encode_apart(text, self._matched_anyway)
        if not self.reserved.keys().isdisjoint(ids):
            ids = self._encode_apart(text, self._all_reserved)
        return ids

    def _encode_apart(self, text: str, reserved: re.Pattern[str] | None) -> list[int]:
        """Tokenize in pieces that are cut after the first character of each reserved text, so that none is found whole."""
        ids: list[int] = []
        start = 0
        while reserved and (match := reserved.search(text, start)):
            ids += self._native(text[start : match.start() + 1])
            start = match.start() + 1
        return ids + self._native(text[start:])

    def _native(self, text: str) -> list[int]:
        if not self._vocab.is_bpe:
            return self._vocab.tokenize(text)
        ids: list[int] = []
        start = 0
        while len(text) - start > _LONGEST_WORD:
            end = start + _LONGEST_WORD
            if last := _LAST_BETWEEN_WORDS.match(text, start, end):
                end = last.end()
            elif self._vocab.pretokenizer in _SAFE_PATTERNS:
                following = _BETWEEN_WORDS.search(text, end - 1)
                end = following.start() if following else len(text)
            ids += self._vocab.tokenize(text[start:end])
            start = end
        return ids + self._vocab.tokenize(text[start:])

    # Tekken

    def _tekken(self) -> Callable[[str], list[int]] | None:
        from mixcli.prompts.tekken import Tekken

        vocab = self._vocab
        special = Vocab.CONTROL | Vocab.UNKNOWN | Vocab.USER_DEFINED | Vocab.UNUSED
        ids = {vocab.piece(i): i for i in range(vocab.n_tokens) if not vocab.attributes(i) & special}
        if not Tekken.suits(ids):
            return None
        tekken = Tekken(ids)
        if self._any_added is None:
            return tekken.encode
        return lambda text: self._around_added(text, tekken.encode)

    def _around_added(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        """Tokenize what stands between the added words of a vocabulary, which are found whole."""
        ids: list[int] = []
        end = 0
        for match in self._any_added.finditer(text) if self._any_added else ():
            ids += [*encode(text[end : match.start()]), self._added[match.group()]]
            end = match.end()
        return ids + encode(text[end:])

    # SentencePiece

    def _encode_pieces(self, text: str) -> list[int]:
        if self._any_added and self._any_added.search(text):
            if not self._only_by_merging.search(text):
                return self._vocab.tokenize(text)
            return self._around_added(text, self._pieces.encode)
        if len(text) <= CHUNK:
            return self._encode_chunk(text, is_start=True)
        ids: list[int] = []
        for i, chunk in enumerate(self._pieces.chunks(text)):
            ids += self._encode_chunk(chunk, is_start=i == 0)
        return ids

    def _encode_chunk(self, text: str, *, is_start: bool) -> list[int]:
        if self._only_by_merging.search(text):
            return self._pieces.encode(text, is_start=is_start)
        return self._vocab.tokenize(text) if is_start else self._pieces.native(text, is_start=False)

    @cached_property
    def _only_by_merging(self) -> re.Pattern[str]:
        """Return what SentencePiece finds in a text and llama.cpp does not, or the other way round: reserved texts, bytes, references."""
        texts = sorted(self.reserved.values(), key=len, reverse=True)
        return re.compile("|".join([*map(re.escape, texts), r"<0x[0-9A-F]{2}>", REFERENCES.pattern]))

    @cached_property
    def _pieces(self) -> SentencePieces:
        return SentencePieces(self._vocab, self.reserved.keys())
