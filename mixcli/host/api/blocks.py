"""An answer as a row of blocks: reasoning, text and tool calls, as OpenAI's Responses and Anthropic's Messages show it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mixcli.engine.sequence import Output

Kind = Literal["reasoning", "text", "call"]


@dataclass(frozen=True)
class Piece:
    """What one output adds: text of its kind; of a call, a part of its arguments. Where a call begins, it has its id and name."""

    kind: Kind
    text: str
    call_id: str = ""
    name: str = ""


@dataclass
class Block:
    """One block of an answer, as far as it is known; `text` of a call is its arguments as JSON."""

    kind: Kind
    text: str = ""
    call_id: str = ""
    name: str = ""


@dataclass
class Blocks:
    """The blocks of an answer, in their order; the last one is open while the answer is written."""

    all: list[Block] = field(default_factory=list)

    @classmethod
    def of(cls, outputs: Sequence[Output]) -> "Blocks":
        """Return the blocks of a whole answer."""
        blocks = cls()
        for output in outputs:
            for piece in pieces(output):
                blocks.add(piece)
        return blocks

    def begins(self, piece: Piece) -> bool:
        """Return whether a piece is the first of another block."""
        return not self.all or bool(piece.call_id) or self.all[-1].kind != piece.kind

    def add(self, piece: Piece) -> None:
        """Take a piece into the open block, or begin another with it."""
        if self.begins(piece):
            self.all.append(Block(piece.kind, "", piece.call_id, piece.name))
        self.all[-1].text += piece.text


def pieces(output: Output) -> Iterator[Piece]:
    """Yield what an output adds to its answer."""
    if output.text:
        yield Piece("text", output.text)


def has_call(blocks: Iterable[Block]) -> bool:
    """Return whether an answer calls a tool."""
    return any(block.kind == "call" for block in blocks)
