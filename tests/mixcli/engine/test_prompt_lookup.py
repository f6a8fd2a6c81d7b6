"""Drafts without a model: found where a text repeats, as long as they pay."""

from mixcli.engine.draft_pace import LONGEST, PAUSE
from mixcli.engine.prompt_lookup import NGRAM, PromptLookup

TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 9] * 8


def warm() -> PromptLookup:
    lookup = PromptLookup()
    lookup.propose([1])
    lookup.observe(0, 0, 1.0)
    return lookup


def test_a_repeated_text_is_continued_as_before() -> None:
    assert warm().propose([*TEXT, 1, 2, 3])[:4] == [4, 5, 6, 7]


def test_nothing_is_guessed_where_nothing_repeats() -> None:
    lookup = warm()
    assert lookup.propose(list(range(50))) == []
    assert lookup.propose([*TEXT, 99, 98, 97]) == []
    assert len(TEXT[-NGRAM:]) == NGRAM


def test_right_guesses_make_longer_ones_and_wrong_ones_shorter() -> None:
    lookup = warm()
    n = len(lookup.propose(TEXT))
    for _ in range(5):
        lookup.observe(n, n, 1.0)
    longest = len(lookup.propose(TEXT))
    assert n < longest <= LONGEST
    lookup.observe(longest, 1, 2.0)
    assert 0 < len(lookup.propose(TEXT)) < longest


def test_dear_guesses_make_short_drafts() -> None:
    """On a machine where a guess costs half a step, and nine of ten are right, long drafts do not pay."""
    cheap, dear = warm(), warm()
    for _ in range(10):
        cheap.observe(10, 9, 1.1)
        dear.observe(10, 9, 6.0)
    assert 0 < len(dear.propose(TEXT)) < len(cheap.propose(TEXT))


def test_drafts_stop_when_plain_steps_are_faster_and_are_tried_again_later() -> None:
    lookup = warm()
    assert lookup.propose(TEXT)
    while lookup.propose(TEXT):
        lookup.observe(4, 0, 3.0)  # three times the time for one token
    silent = 1
    while not lookup.propose(TEXT):
        silent += 1
        lookup.observe(0, 0, 1.0)
    assert silent == PAUSE
    while lookup.propose(TEXT):
        lookup.observe(4, 0, 3.0)
    silent = 1
    while not lookup.propose(TEXT):
        silent += 1
    assert silent == 2 * PAUSE, "each time longer"


def test_without_a_plain_step_there_is_nothing_to_compare_with() -> None:
    assert PromptLookup().propose(TEXT) == []
