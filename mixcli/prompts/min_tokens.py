"""A lower bound of a text's token count from its bytes, to refuse oversized prompts before tokenization.

A text's tokens cover its bytes, each byte once. A token that covers a byte b is at most as long as L(b), the longest piece of the vocabulary
that b occurs in, so it takes at most its own length of shares of 1/L(b), which is 1. The sum of 1/L(b) over all bytes is therefore a lower
bound of the number of tokens, and a histogram of the bytes is all that it needs. It is never too high:

- surrogates, which are replaced or joined, and SentencePiece's additional space are not counted;
- where a vocabulary has no token for a single byte, llama.cpp's BPE drops that byte (it counts nothing), and SentencePiece writes one unknown
  token for a whole character (of four bytes at most);
- where a token takes away the white space beside it, white space counts nothing;
- vocabularies of other kinds, which rewrite a text before they split it, have no bound.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mixcli.llama.model import Vocab

CHARACTERS = 1 << 18  # that are looked at at once
_WHITE = b" \t\n\v\f\r"
_LONGEST_CHARACTER = 4


class TokenBound:
    """The least number of tokens of texts in one vocabulary."""

    def __init__(self, vocab: Vocab) -> None:
        self._shares = _shares(vocab)

    def of(self, parts: Iterable[int | str]) -> int:
        """Return a lower bound for the tokens of a prompt's parts: an int is a token, a str is text."""
        n_tokens, share = 0, 0.0
        for part in parts:
            if isinstance(part, int):
                n_tokens += 1
            else:
                share += self._share(part)
        return n_tokens + int(share * (1 - 1e-9))

    def _share(self, text: str) -> float:
        total = 0.0
        for at in range(0, len(text), CHARACTERS):
            raw = np.frombuffer(text[at : at + CHARACTERS].encode("utf-8", "ignore"), np.uint8)
            total += float(np.bincount(raw, minlength=256) @ self._shares)
        return total


def _shares(vocab: Vocab) -> NDArray[np.float64]:
    """Return for each byte the share of a token that it takes at least."""
    if not (vocab.is_sentencepiece or vocab.is_bpe):
        return np.zeros(256)
    longest = np.zeros(256, np.int64)
    single = np.zeros(256, np.bool_)
    strips = False
    for token in range(vocab.n_tokens):
        piece = vocab.piece(token)
        if not piece:  # a control token: what its name looks like may be merged to it
            piece = vocab.text(token).encode("utf-8", "replace")
        elif len(piece) == 1:
            single[piece[0]] = True
        strips = strips or bool(vocab.attributes(token) & Vocab.STRIPS)
        for byte in set(piece):
            longest[byte] = max(longest[byte], len(piece))
    if vocab.is_sentencepiece:
        longest[~single] = np.maximum(longest[~single], _LONGEST_CHARACTER)
        shares = 1.0 / longest
    else:
        shares = np.where(single, 1.0 / np.maximum(longest, 1), 0.0)
    if strips:
        shares[list(_WHITE)] = 0.0
    return shares
