"""Cutting long texts: everything in, nothing too long, at the bounds that a reader would choose."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixcli.errors import DoesNotFit
from mixcli.run.map_reduce import combined, room_for
from mixcli.run.split import BOUNDS, PARAGRAPH, SENTENCE, cut, split


def words(text: str) -> int:
    """A stand-in for tokens whose counts do not add up exactly either: words and signs, and one for a beginning."""
    return 1 + len(re.findall(r"\w{1,6}|[^\w\s]", text))


def test_paragraphs_stay_whole_where_they_fit() -> None:
    text = "One two three.\nFour five.\n\nSix seven eight.\n\n\nNine ten eleven twelve."
    assert split(text, words, 10) == [
        "One two three.\nFour five.",
        "Six seven eight.",
        "Nine ten eleven twelve.",
    ]
    assert split(text, words, 100) == [text]


def test_sentences_stay_whole_where_paragraphs_do_not_fit() -> None:
    text = 'He said "no." She left! Was it 3.14? Perhaps it was. 彼は行った。彼女も。 Done.'
    assert cut(text, SENTENCE) == [
        'He said "no."',
        " She left!",
        " Was it 3.14?",
        " Perhaps it was.",
        " 彼は行った。",
        "彼女も。",
        " Done.",
    ]
    assert cut("a\n\n\n b", PARAGRAPH) == ["a\n\n\n", " b"]


def test_a_part_begins_with_the_end_of_the_one_before() -> None:
    text = " ".join(f"Sentence number {n} here." for n in range(20))
    parts = split(text, words, 24, overlap=8)
    for before, after in pairwise(parts):
        shared = after.split(". ")[0] + "."
        assert before.endswith(shared)


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab .!?\n。x"), max_size=400), st.integers(8, 40), st.integers(0, 3))
def test_no_part_is_too_long_and_nothing_is_lost(text: str, room: int, overlap: int) -> None:
    parts = split(text, words, room, overlap)
    assert all(part.strip() for part in parts)
    joined = "".join(text.split())
    at = 0
    for part in parts:  # each part begins inside of what the ones before had, or right behind it
        piece = "".join(part.split())
        starts = [
            start for start in range(max(0, at - len(piece)), at + 1) if joined.startswith(piece, start)
        ]
        assert starts, f"{piece!r} is not what comes next"
        at = max(at, max(starts) + len(piece))
        assert words(part) <= room + 1
    assert at == len(joined)


@given(st.text(max_size=300))
def test_pieces_joined_are_the_text(text: str) -> None:
    for bound in BOUNDS:
        assert "".join(cut(text, bound)) == text


def test_answers_are_a_quarter_at_most_so_that_every_level_is_shorter() -> None:
    room = room_for(2048, 100, None)
    assert room.answer == 2048 // 6
    assert room.part + room.answer + 100 < 2048
    assert room_for(2048, 100, 5000).answer * 4 <= 2048 - 100
    with pytest.raises(DoesNotFit, match="--ctx"):
        room_for(256, 200, None)


def test_answers_keep_their_order_and_number() -> None:
    text = combined([f"answer {n}" for n in range(12)])
    assert "(01) answer 0\n\n(02) answer 1" in text
    assert "(12) answer 11" in text
