"""The texts that are read: what is in those that ship, and what a person's own are called."""

import re
from itertools import cycle
from pathlib import Path

import pytest

from mixcli.errors import UsageError
from mixcli.insight.pieces import (
    CALIBRATION,
    HELD_OUT,
    TextPiece,
    check_length,
    from_texts,
    names_of,
    shipped,
)

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


def test_files_of_one_name_are_texts_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = list(map(Path, ("a/t.txt", "b/t.txt", "x/a/t.txt", "b/u.txt", "-")))
    names = [f"{tmp_path.name}/a/t.txt", "b/t.txt", "x/a/t.txt", "u.txt", "-"]
    assert [piece.name for piece in from_texts(paths, names)] == names
    with pytest.raises(UsageError, match=r"--text b/\.\./a/t\.txt is given twice; pass each text once"):
        names_of([*paths, Path("b/../a/t.txt")])


@pytest.mark.parametrize(
    ("text", "is_refused"), [("", True), ("a" * 59, True), ("a" * 60, False), (" " * 20, False)]
)
def test_a_text_that_cannot_fill_a_chunk_is_refused_before_a_model_is_loaded(
    text: str, is_refused: bool
) -> None:
    pieces = [TextPiece("t.txt", "prose", text), TextPiece("u.txt", "prose", "a")]
    if not is_refused:
        check_length(pieces, 64)
        return
    with pytest.raises(UsageError, match=rf"t\.txt \({len(text)} characters\), u\.txt \(1 character\): less"):
        check_length(pieces, 64)
