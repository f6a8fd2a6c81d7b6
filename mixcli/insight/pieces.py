"""The texts that are read: a person's own files, and the built-in ones, in five languages, code and conversations."""

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mixcli.errors import UsageError
from mixcli.system.formatting import counted
from mixcli.system.text import shown

CALIBRATION, HELD_OUT = "calibration", "held-out"
Kind = Literal["prose", "code", "chat"]
Turn = tuple[str, str]  # role and content


@dataclass(frozen=True)
class TextPiece:
    """A text, or the turns of a conversation in its place; pieces of one `name` are measured together ("french", "code", a file's name)."""

    name: str
    kind: Kind
    text: str = ""
    turns: tuple[Turn, ...] = ()

    def to_data(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> "TextPiece":
        """Read what `to_data` returned."""
        return cls(
            data["name"], data["kind"], data["text"], tuple((role, said) for role, said in data["turns"])
        )


def shipped(name: str) -> list[TextPiece]:
    """Return the pieces of a built-in text, CALIBRATION or HELD_OUT, in the order in which they are read."""
    raw = files("mixcli.insight").joinpath("corpus", f"{name}.toml").read_text("utf-8")
    return [
        TextPiece(
            one["name"],
            one["kind"],
            one.get("text", "").strip("\n") + "\n",
            tuple((role, said.strip("\n")) for role, said in one.get("turns", ())),
        )
        for one in tomllib.loads(raw)["piece"]
    ]


def check_length(pieces: Sequence[TextPiece], n_ctx: int) -> None:
    """Raise UsageError where no text can fill a chunk of `n_ctx` tokens, whatever the vocabulary: a byte is one token at most.

    A space may be three of them, as SentencePiece writes it, and a text may get one more and a beginning of sequence in front. A
    conversation is not judged: its chat format adds to it.
    """
    sizes = Counter[str]()
    for piece in pieces:
        if piece.turns:
            return
        sizes[piece.name] += len(piece.text.encode("utf-8", "replace")) + 2 * piece.text.count(" ")
    if sizes and max(sizes.values()) + 4 < n_ctx:
        found = ", ".join(
            f"{name} ({counted(sum(len(one.text) for one in pieces if one.name == name), 'character')})"
            for name in sizes
        )
        raise UsageError(
            f"{found}: less than one chunk of {n_ctx:,} tokens; use a longer text or a smaller --ctx"
        )


def from_texts(paths: Sequence[Path], texts: Sequence[str]) -> list[TextPiece]:
    """Return a person's texts as pieces that are called as their files; UsageError for a file that comes twice."""
    return [TextPiece(name, "prose", text) for name, text in zip(names_of(paths), texts, strict=True)]


def names_of(paths: Sequence[Path]) -> list[str]:
    """Return the name of each file, with as many of its folders as tell it from the others; UsageError for a file that comes twice."""
    real = [path if str(path) == "-" else path.resolve() for path in paths]
    for n, one in enumerate(real):
        if one in real[:n]:
            raise UsageError(f"--text {shown(paths[n])} is given twice; pass each text once")
    whole = [path if str(path) == "-" else path.absolute() for path in paths]
    return [_shortest(one, [other for other in whole if other != one]) for one in whole]


def _shortest(path: Path, others: Sequence[Path]) -> str:
    """Return the shortest end of a path that no other path ends with."""
    ends = (path.parts[-n:] for n in range(1, len(path.parts)))
    alone = (end for end in ends if all(other.parts[-len(end) :] != end for other in others))
    return str(Path(*next(alone, path.parts)))
