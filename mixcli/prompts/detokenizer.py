"""Turn tokens into displayable text: whole characters only, held back while a stop text may match."""

import codecs
from collections.abc import Sequence

from mixcli.llama.model import Vocab


class Detokenizer:
    """Turns one answer's tokens into text deltas.

    Bytes wait until their character is complete (a character can be spread over four tokens); bytes that never become one show as
    U+FFFD. `at_start` says that the answer opens a turn: then SentencePiece's dummy space before its first word is left out.
    """

    def __init__(self, vocab: Vocab, *, at_start: bool = True) -> None:
        self._vocab = vocab
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = at_start and vocab.adds_space_prefix

    def push(self, token: int) -> str:
        """Return the characters that this token completes."""
        piece = self._vocab.piece(token)
        if self._drop_space and piece:
            piece = piece.removeprefix(b" ")
            self._drop_space = False
        return self._decoder.decode(piece)

    def flush(self) -> str:
        """Return what is left at the end: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Finds the first stop text in a stream; holds back what may turn out to be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._held = ""
        self.met: str | None = None  # the stop text that ended the answer

    def push(self, delta: str) -> tuple[str, bool]:
        """Return the text that can be shown now, and whether a stop text was met (then the answer is over)."""
        if not self._stops:
            return delta, False
        text = self._held + delta
        found = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, self.met = min(found)
            self._held = ""
            return text[:at], True
        keep = max(overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def flush(self) -> str:
        """Return what was held back, when the answer ends for another reason."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that a stop text begins with."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[len(text) - length :]):
            return length
    return 0
