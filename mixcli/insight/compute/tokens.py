"""Turn pieces of text into token ids, conversations in the model's own chat format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixcli.insight.pieces import Kind, TextPiece
from mixcli.llama.model import Model
from mixcli.prompts.base_model import NO_FORMAT, format_of
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.messages import Message


@dataclass
class Section:
    """The token ids of all pieces of one name."""

    name: str
    kind: Kind
    tokens: list[int] = field(default_factory=list)


def sections(model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None]) -> list[Section]:
    """Return the token ids of pieces, name by name in the order of their first pieces; `note` gets what a person should know."""
    found: dict[str, Section] = {}
    for piece, ids in zip(pieces, _encoded(model, pieces, note), strict=True):
        found.setdefault(piece.name, Section(piece.name, piece.kind)).tokens += ids
    return list(found.values())


def stream(model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None]) -> list[int]:
    """Return the token ids of all pieces, one behind the other."""
    return [token for ids in _encoded(model, pieces, note) for token in ids]


def _encoded(model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None]) -> list[list[int]]:
    chat_format = format_of(model)
    if chat_format.name == NO_FORMAT and any(piece.turns for piece in pieces):
        note(f"{model.path.name} has no chat template, so conversations are read as plain text")
    return [_tokens(model, chat_format, piece) for piece in pieces]


def _tokens(model: Model, chat_format: ChatFormat, piece: TextPiece) -> list[int]:
    if not piece.turns:
        return chat_format.tokenizer.encode(piece.text)
    if chat_format.name == NO_FORMAT:
        return chat_format.tokenizer.encode("\n\n".join(said for _, said in piece.turns) + "\n")
    messages = [Message(role, said) for role, said in piece.turns]
    return [*chat_format.encode(messages), model.vocab.eos]
