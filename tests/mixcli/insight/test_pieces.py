"""The texts that ship: what is in them, and that one is not measured on what the other was made of."""

import re
from itertools import cycle

import pytest

from mixcli.insight.pieces import CALIBRATION, HELD_OUT, TextPiece, shipped

NAMES = {"english", "french", "german", "spanish", "italian", "code", "chat"}


@pytest.mark.parametrize("name", [CALIBRATION, HELD_OUT])
def test_five_languages_code_and_conversations(name: str) -> None:
    pieces = shipped(name)
    assert {piece.name for piece in pieces} == NAMES
    assert {piece.kind for piece in pieces} == {"prose", "code", "chat"}
    for piece in pieces:
        roles = [role for role, _ in piece.turns if role != "system"]
        assert roles == [role for role, _ in zip(cycle(("user", "assistant")), roles, strict=False)]
        assert not roles or roles[-1] == "assistant"
        assert piece.text.strip() or roles
        assert TextPiece.from_data(piece.to_data()) == piece


def test_no_sentence_is_in_both() -> None:
    def sentences(name: str) -> set[str]:
        texts = [text for piece in shipped(name) for text in (piece.text, *(said for _, said in piece.turns))]
        return {one.strip() for text in texts for one in re.split(r"[.!?\n]", text) if len(one.strip()) > 30}

    found = [sentences(name) for name in (CALIBRATION, HELD_OUT)]
    assert min(map(len, found)) > 100
    assert found[0].isdisjoint(found[1])
