"""Turn pieces of text into token ids, conversations in the model's own chat format."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mixcli.insight.pieces import Kind, TextPiece
from mixcli.llama.model import Model
from mixcli.prompts.base_model import NO_FORMAT, format_of
from mixcli.prompts.chat_format import ChatFormat
from mixcli.prompts.content_tokenizer import ContentTokenizer
from mixcli.prompts.messages import Message

CHARACTERS = 8  # of a token, rather more than usual: so the first look at a long text is usually enough
MARGIN = 256  # tokens before a cut inside a word that are not used, as the cut may change them
_BETWEEN_WORDS = re.compile(r"(?<=\w) (?=\w)")


@dataclass
class Section:
    """The token ids of all pieces of one name."""

    name: str
    kind: Kind
    tokens: list[int] = field(default_factory=list)


def sections(
    model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None], enough: int | None = None
) -> list[Section]:
    """Return the token ids of pieces, name by name in the order of their first pieces; `note` gets what a person should know.

    With `enough` only so many tokens of a long text are returned, and the rest is not tokenized.
    """
    found: dict[str, Section] = {}
    for piece, ids in zip(pieces, _encoded(model, pieces, note, enough), strict=True):
        found.setdefault(piece.name, Section(piece.name, piece.kind)).tokens += ids
    return list(found.values())


def stream(
    model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None], enough: int | None = None
) -> list[int]:
    """Return the token ids of all pieces, one after the other; with `enough` no more than so many, and no more is tokenized than that takes."""
    return [token for ids in _encoded(model, pieces, note, enough) for token in ids][:enough]


def _encoded(
    model: Model, pieces: Sequence[TextPiece], note: Callable[[str], None], enough: int | None
) -> list[list[int]]:
    chat_format = format_of(model)
    if chat_format.name == NO_FORMAT and any(piece.turns for piece in pieces):
        note(f"{model.path.name} has no chat template, so conversations are read as plain text")
    return [_tokens(model, chat_format, piece, enough) for piece in pieces]


def _tokens(model: Model, chat_format: ChatFormat, piece: TextPiece, enough: int | None) -> list[int]:
    if not piece.turns:
        return beginning(chat_format.tokenizer, piece.text, enough)
    if chat_format.name == NO_FORMAT:
        return chat_format.tokenizer.encode("\n\n".join(said for _, said in piece.turns) + "\n")
    messages = [Message(role, said) for role, said in piece.turns]
    return [*chat_format.encode(messages), model.vocab.eos]


def beginning(tokenizer: ContentTokenizer, text: str, enough: int | None) -> list[int]:
    """Return the token ids of a text, the first `enough` of a longer one; None for all. What is after them is not tokenized."""
    if enough is None:
        return tokenizer.encode(text)
    n = (enough + MARGIN) * CHARACTERS
    while n < len(text):
        word_end = _BETWEEN_WORDS.search(text, n, n + MARGIN * CHARACTERS)
        ids = tokenizer.encode(text[: word_end.start() if word_end else n])
        if len(ids) >= enough + MARGIN:
            return ids[:enough]
        n *= 4
    return tokenizer.encode(text)[:enough]
