"""SentencePiece's BPE in Python, for the cases where llama.cpp differs, and safe cuts of long text.

The algorithm of Sennrich et al. (arXiv 1508.07909) as SentencePiece runs it: of all neighbors that form a piece, the one with the best
score is merged first, the leftmost among equals; what is left over and no piece is spelled in bytes.
"""

import heapq
import re
from collections.abc import Iterable, Iterator
from functools import cached_property

from mixcli.llama.model import Vocab

_SPACE = "\u2581"
# Mistral's tokenizers v3 and v7 find these whole in any text (USER_DEFINED in tokenizer.model, often NORMAL in a GGUF).
REFERENCES = re.compile(r"\[/?REF\]|\[REFERENCE_DOC_\d+\]")
CHUNK = 4096  # characters; llama.cpp takes quadratic time for text that is spelled in bytes


class SentencePieces:
    """Tokenizes with the pieces that text may become: all but `reserved`, control and unknown tokens."""

    def __init__(self, vocab: Vocab, reserved: Iterable[int]) -> None:
        hidden = set(reserved)
        self._vocab = vocab
        self._scores: dict[str, float] = {}
        self._ids: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        self._unknown: list[int] = []
        self.whole: dict[str, int] = {}  # found whole in any text
        for token in range(vocab.n_tokens):
            text, bits = vocab.text(token), vocab.attributes(token)
            if bits & Vocab.BYTE:
                self._bytes[vocab.piece(token)[0]] = token
            elif bits & Vocab.UNKNOWN:
                self._unknown = [token]
            elif bits & Vocab.CONTROL:
                pass
            elif REFERENCES.fullmatch(text):
                self.whole[text] = token
            elif token not in hidden:
                self._ids[text], self._scores[text] = token, vocab.score(token)
        self._prefix = _SPACE if vocab.adds_space_prefix else ""
        self._whole = re.compile("(" + "|".join(map(re.escape, self.whole)) + ")") if self.whole else None

    def encode(self, text: str, *, is_start: bool = True) -> list[int]:
        """Return the ids of a text, or of a part of one that does not start it."""
        spelled = (self._prefix if is_start else "") + text.replace(" ", _SPACE)
        ids: list[int] = []
        for run in self._whole.split(spelled) if self._whole else [spelled]:
            if (token := self.whole.get(run)) is not None:
                ids.append(token)
            elif run:
                ids += self._merged(run)
        return ids

    def _merged(self, text: str) -> list[int]:
        symbols = list(text)
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

    # Long texts

    @cached_property
    def _neighbors(self) -> frozenset[str]:
        """Return all two characters that stand side by side in a piece: between any others no merge ever happens."""
        texts = [*self._ids, *self.whole, *self._vocab.specials]
        spelled = (text.replace(" ", _SPACE) for text in texts)
        return frozenset(text[i : i + 2] for text in spelled for i in range(len(text) - 1))

    def chunks(self, text: str) -> Iterator[str]:
        """Cut a long text where the ids of its parts are the ids of the whole."""
        start = 0
        while start < len(text):
            end = start + CHUNK
            while end < len(text) and self._spelled(text, end) in self._neighbors:
                end += 1
            yield text[start:end]
            start = end

    @staticmethod
    def _spelled(text: str, at: int) -> str:
        return text[at - 1 : at + 1].replace(" ", _SPACE)

    @cached_property
    def _line_end(self) -> list[int] | None:
        """Return the ids of a text that is a line end, if it never merges with what follows; None where it may."""
        ids = self._vocab.tokenize("\n")
        merges = any("\n" in pair for pair in self._neighbors)
        return None if merges or self._vocab.tokenize("\na")[: len(ids)] != ids else ids

    def native(self, text: str, *, is_start: bool) -> list[int]:
        """Return llama.cpp's ids of a part: after a line end no space is put before it, and those ids are dropped again."""
        if is_start or not self._prefix:
            return self._vocab.tokenize(text)
        if self._line_end is None:
            return self.encode(text, is_start=False)
        return self._vocab.tokenize("\n" + text)[len(self._line_end) :]
