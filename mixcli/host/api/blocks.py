"""An answer as a row of blocks: reasoning, text and tool calls, as OpenAI's Responses and Anthropic's Messages show it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mixcli.engine.sequence import Output
from mixcli.prompts.tool_json import nine

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
    """The blocks of an answer, in their order; the last one is open while the answer is written. `name` makes the ids of its calls."""

    name: str
    all: list[Block] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, outputs: Sequence[Output]) -> "Blocks":
        """Return the blocks of a whole answer."""
        blocks = cls(name)
        for output in outputs:
            for piece in blocks.pieces(output):
                blocks.add(piece)
        return blocks

    def pieces(self, output: Output) -> Iterator[Piece]:
        """Yield what an output adds to the answer."""
        if not output.segments and output.text:
            yield Piece("text", output.text)
        for one in output.segments:
            if one.kind == "call":
                yield Piece("call", "", nine(f"{self.name} {one.index}"), one.text)
            elif one.kind == "arguments":
                yield Piece("call", one.text)
            else:
                yield Piece("text" if one.kind == "content" else "reasoning", one.text)

    def begins(self, piece: Piece) -> bool:
        """Return whether a piece is the first of another block."""
        return not self.all or bool(piece.call_id) or self.all[-1].kind != piece.kind

    def add(self, piece: Piece) -> None:
        """Take a piece into the open block, or begin another with it."""
        if self.begins(piece):
            self.all.append(Block(piece.kind, "", piece.call_id, piece.name))
        self.all[-1].text += piece.text


def has_call(blocks: Iterable[Block]) -> bool:
    """Return whether an answer calls a tool."""
    return any(block.kind == "call" for block in blocks)
