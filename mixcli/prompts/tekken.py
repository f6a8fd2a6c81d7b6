"""Mistral's tekken tokenizer, run by tiktoken as in mistral_common.

llama.cpp has tekken too, but its copy of the pattern lost \\p{M}, so that Hindi, Thai, Tamil and Vietnamese fall into more tokens than
the model was trained on; and it runs the pattern by std::regex, which overflows the stack on a long word and so ends the process.
"""

import re
from collections.abc import Mapping

from tiktoken import Encoding

# Equal to tekken.json's `config.pattern`
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MAX_BLANKS = 100_000  # characters; tiktoken's regex engine gives up at a run of about a million
_BLANKS = (
    "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space, Rust's \s
)
_LONG_BLANKS = re.compile(f"[{_BLANKS}]{{{MAX_BLANKS},}}")


class Tekken:
    """Text to ids: cut by the pattern, then merged by rank; `ids` are the ordinary tokens with their bytes, in the order of rank."""

    def __init__(self, ids: Mapping[bytes, int]) -> None:
        self._ids = dict(ids)
        self._encoding = Encoding("tekken", pat_str=PATTERN, mergeable_ranks=self._ids, special_tokens={})
        self._uncut: Encoding | None = None

    @staticmethod
    def suits(ids: Mapping[bytes, int]) -> bool:
        """Return whether every byte has a token, so that any text can be written."""
        return all(bytes([byte]) in ids for byte in range(256))

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text without lone surrogates."""
        ids: list[int] = []
        done = 0
        for run in _LONG_BLANKS.finditer(text):
            # The pattern takes the blanks up to the last line end as one piece. Of what follows it takes all as one piece at the
            # end of the text, else all but the last, which belongs to the next piece.
            start = 1 + max(text.rfind("\n", *run.span()), text.rfind("\r", *run.span()), run.start() - 1)
            end = run.end() if run.end() == len(text) else run.end() - 1
            if end - start > 1:
                ids += self._encoding.encode_ordinary(text[done:start])
                ids += self._as_one_piece(text[start:end])
                done = end
        return ids + self._encoding.encode_ordinary(text[done:])

    def _as_one_piece(self, text: str) -> list[int]:
        if self._uncut is None:
            self._uncut = Encoding("uncut", pat_str=r"(?s:.)+", mergeable_ranks=self._ids, special_tokens={})
        return self._uncut.encode_ordinary(text)
