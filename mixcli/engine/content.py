"""Text that a person wrote becomes tokens, and never a control token.

llama.cpp is asked not to look for special tokens, but three ways to one stay open, and this module closes them:

- its SentencePiece tokenizer merges characters into any vocabulary entry, control and byte tokens included, where SentencePiece
  itself leaves those out ("</s>" can become the end of the sequence, "<0x0A>" a line feed);
- a GGUF may declare chat markers such as <|im_start|> USER_DEFINED, which are matched in any text;
- BPE vocabularies that skip merges for whole words can hit a control token that way.

Ordinary text takes the fast way through llama.cpp; the others are only entered where a reserved text really occurs.
"""

import heapq
import re
from collections.abc import Iterable
from functools import cached_property

from mixcli.engine.llama import Vocab

# How chat markers look in the vocabularies of the wild; a template's own markers are passed in by name.
_MARKER = re.compile(r"<\|.+\|>|\[/?[A-Z_]+\]|</?s>|<(start|end)_of_\w+>", re.DOTALL)
_SPACE = "\u2581"


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
            or _MARKER.fullmatch(text)
            or (text in template and len(text) > 1)
        }
        self._literal = _any_of(vocab.specials)
        self._matched_anyway = _any_of(t for i, t in self.reserved.items() if bits[i] & Vocab.USER_DEFINED)
        self._all_reserved = _any_of(self.reserved.values())

    def encode(self, text: str) -> list[int]:
        """Give the token ids of `text`, none of which is reserved; a lone surrogate counts as a question mark."""
        if not text:
            return []
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()
        if self._vocab.is_sentencepiece:
            if self._mergeable.search(text):
                return self._pieces.encode(text)
            return self._vocab.tokenize(text)
        ids = self._encode_apart(text, self._matched_anyway)
        if not self.reserved.keys().isdisjoint(ids):
            ids = self._encode_apart(text, self._all_reserved)
        return ids

    def split_literal(self, text: str) -> list[int | str]:
        """Split a template's own text: its special tokens become ids, the rest stays text."""
        if self._literal is None:
            return [text] if text else []
        parts: list[int | str] = []
        end = 0
        for match in self._literal.finditer(text):
            parts += [text[end : match.start()], self._vocab.specials[match.group()]]
            end = match.end()
        return [part for part in [*parts, text[end:]] if part != ""]

    def _encode_apart(self, text: str, reserved: re.Pattern[str] | None) -> list[int]:
        """Tokenize in pieces that are cut behind the first character of each reserved text, so that none is found whole."""
        ids: list[int] = []
        while reserved and (match := reserved.search(text)):
            ids += self._vocab.tokenize(text[: match.start() + 1])
            text = text[match.start() + 1 :]
        return ids + self._vocab.tokenize(text)

    @cached_property
    def _mergeable(self) -> re.Pattern[str]:
        """What SentencePiece would never build by merging but llama.cpp might: reserved texts and byte tokens."""
        return re.compile(
            "|".join(map(re.escape, sorted(self.reserved.values(), key=len, reverse=True)))
            + r"|<0x[0-9A-F]{2}>"
        )

    @cached_property
    def _pieces(self) -> "SentencePieces":
        return SentencePieces(self._vocab, self.reserved.keys())


class SentencePieces:
    """SentencePiece's BPE over the pieces that text may become; used where llama.cpp would build a reserved one.

    The algorithm of Sennrich et al. (arXiv 1508.07909) as SentencePiece runs it: of all neighbours that form a piece, the one
    with the best score is merged first, the leftmost among equals; what is left over and no piece is spelled in bytes.
    """

    def __init__(self, vocab: Vocab, reserved: Iterable[int]) -> None:
        hidden = set(reserved)
        self._scores: dict[str, float] = {}
        self._ids: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        self._unknown: list[int] = []
        for token in range(vocab.n_tokens):
            text, bits = vocab.text(token), vocab.attributes(token)
            if bits & Vocab.BYTE:
                self._bytes[vocab.piece(token)[0]] = token
            elif bits & Vocab.UNKNOWN:
                self._unknown = [token]
            elif token not in hidden:
                self._ids[text], self._scores[text] = token, vocab.score(token)
        self._prefix = _SPACE if vocab.adds_space_prefix else ""

    def encode(self, text: str) -> list[int]:
        symbols = list(self._prefix + text.replace(" ", _SPACE))
        left = list(range(-1, len(symbols) - 1))
        right = [*range(1, len(symbols)), -1]
        agenda: list[tuple[float, int, str]] = []

        def consider(at: int) -> None:
            if at >= 0 and right[at] >= 0:
                pair = symbols[at] + symbols[right[at]]
                if pair in self._scores:
                    heapq.heappush(agenda, (-self._scores[pair], at, pair))

        for i in range(len(symbols)):
            consider(i)
        while agenda:
            _, at, pair = heapq.heappop(agenda)
            if not symbols[at] or right[at] < 0 or symbols[at] + symbols[right[at]] != pair:
                continue  # one half was merged into something else meanwhile
            gone = right[at]
            symbols[at], symbols[gone] = pair, ""
            right[at] = right[gone]
            if right[at] >= 0:
                left[right[at]] = at
            consider(left[at])
            consider(at)
        return [token for symbol in symbols if symbol for token in self._spell(symbol)]

    def _spell(self, symbol: str) -> list[int]:
        if symbol in self._ids:
            return [self._ids[symbol]]
        spelled = symbol.encode("utf-8", "replace")
        if all(byte in self._bytes for byte in spelled):
            return [self._bytes[byte] for byte in spelled]
        return self._unknown
