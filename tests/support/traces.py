"""What a model writes, token by token, and by how much each was likelier than the next: the oracle of tests that read an answer.

Processors round differently, and so do batches of other sizes. Where two tokens are almost equally likely the other one may come, and
another text after it: up to there a text is held to its trace, and a trace that a test wants whole has no such place.
"""

from dataclasses import dataclass

TIE = 0.5  # nats; between processors' kernels (AVX2 or AVX, repacked or plain) gaps differ by 0.35 at most


@dataclass(frozen=True)
class Trace:
    """The likeliest tokens after a prompt, as text, and the gap to the second (a difference of logarithms) of each; "" ends the answer."""

    steps: tuple[tuple[str, float], ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(piece for piece, _ in self.steps)

    @property
    def certain(self) -> str:
        """The text up to the first token that rounding could replace."""
        certain = ""
        for piece, gap in self.steps:
            if gap < TIE:
                break
            certain += piece
        return certain

    def matches(self, text: str) -> bool:
        """Return whether a text is the trace's, up to where rounding could change it."""
        certain, text = self.certain.strip(), text.strip()
        if certain == self.text.strip():
            return text == certain
        return text.startswith(certain)


# the demo, asked "What is the capital of France?"
CAPITAL = Trace(
    (("The", 1.7), (" capital", 5.7), (" of", 5.6), (" France", 4.2), (" is", 4.8), (" Paris", 4.8), (".", 2.1), ("", 1.8))
)  # fmt: skip
# SmolLM2, asked the same, with "Answer in one sentence." before it
SMALL_CAPITAL = Trace(
    (("The", 1.1), (" capital", 6.0), (" of", 4.4), (" France", 5.0), (" is", 4.0), (" Paris", 4.4), (".", 0.5), ("", 4.4))
)  # fmt: skip

__all__ = ["CAPITAL", "SMALL_CAPITAL", "TIE", "Trace"]
