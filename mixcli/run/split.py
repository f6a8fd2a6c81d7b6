"""Split a text into parts of a maximum token count: between paragraphs, else sentences, else words."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

Count = Callable[[str], int]  # tokens of a text

PARAGRAPH = re.compile(r"(?<=\n\n)(?=[ \t]*\S)")
SENTENCE = re.compile(r"(?<=[.!?…])(?=\s)|(?<=[.!?…][\"'”»)])(?=\s)|(?<=[。！？])|(?<=\n)")
WORD = re.compile(r"(?<=\s)(?=\S)")
BOUNDS = (PARAGRAPH, SENTENCE, WORD)
LONGEST = 128  # characters a token: a piece with more than that is cut without being counted
FINE = 8  # pieces of a sentence that is too long to a part: finer ones fill the parts better, and each is counted


def split(text: str, count: Count, room: int, overlap: int = 0) -> list[str]:
    """Return parts of at most `room` tokens that together hold all of the text.

    A part begins with the sentences that the one before ended with, as many as fit into `overlap` tokens, so that what stands across
    a cut is seen whole by one of the two. `room` must be more than twice `overlap`.
    """
    if room < 8 or overlap * 2 >= room:
        raise ValueError(f"room {room} and overlap {overlap} leave nothing to work with")
    pieces = [(piece, count(piece)) for piece in _pieces(text, count, room - overlap, 0)]
    parts: list[str] = []
    tail, tail_tokens = "", 0
    at = 0
    while at < len(pieces):
        taken: list[str] = []
        n_tokens = tail_tokens
        while at < len(pieces) and (not taken or n_tokens + pieces[at][1] <= room):
            taken.append(pieces[at][0])
            n_tokens += pieces[at][1]
            at += 1
        body = "".join(taken)
        parts.append((tail + body).strip())
        tail, tail_tokens = _tail(body, count, overlap)
    return [part for part in parts if part]


def _pieces(text: str, count: Count, room: int, level: int) -> Iterator[str]:
    """Yield consecutive pieces that fit, cut at the coarsest bound that does."""
    if len(text) <= room * LONGEST and count(text) <= room:
        yield text
    elif level < len(BOUNDS) - 1:
        for piece in cut(text, BOUNDS[level]):
            yield from _pieces(piece, count, room, level + 1)
    else:
        yield from _halves(cut(text, WORD), count, max(room // FINE, 1), room)


def _halves(words: Sequence[str], count: Count, fine: int, room: int) -> Iterator[str]:
    """Yield a sentence that is too long in pieces of about `fine` tokens, halved again and again: few counts, however many words.

    A word that does not fit is halved too, down to single characters; however many tokens one of these has.
    """
    todo = [words]
    while todo:
        part = todo.pop()
        text = "".join(part)
        if len(text) <= 1 or (
            len(text) <= fine * LONGEST and count(text) <= (fine if len(part) > 1 else room)
        ):
            yield text
        elif len(part) > 1:
            todo += (part[len(part) // 2 :], part[: len(part) // 2])
        else:
            todo += ([text[len(text) // 2 :]], [text[: len(text) // 2]])


def cut(text: str, bound: re.Pattern[str]) -> list[str]:
    """Cut a text at every place that a pattern of no width finds; joined again the pieces are the text."""
    places = [
        0,
        *(match.start() for match in bound.finditer(text) if 0 < match.start() < len(text)),
        len(text),
    ]
    return [text[a:b] for a, b in pairwise(places) if a < b]


def _tail(text: str, count: Count, overlap: int) -> tuple[str, int]:
    """Return the last sentences of a text that fit into `overlap` tokens, and how many tokens they have."""
    tail, n_tokens = "", 0
    for sentence in reversed(cut(text, SENTENCE)) if overlap else ():
        n_more = count(sentence)
        if n_tokens + n_more > overlap:
            break
        tail, n_tokens = sentence + tail, n_tokens + n_more
    return tail, n_tokens
