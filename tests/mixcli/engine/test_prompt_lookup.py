"""Drafts without a model: found where a text repeats, as long as they pay."""

from mixcli.engine.draft_pace import LONGEST, PAUSE
from mixcli.engine.prompt_lookup import NGRAM, PromptLookup
from mixcli.engine.step_costs import StepCosts

TEXT = [1, 2, 3, 4, 5, 6, 7, 8, 9] * 8


def warm(each: float = 0.01) -> PromptLookup:
    """Return the drafts of an engine that has measured what `each` token more adds to a step."""
    costs = StepCosts()
    for n in (1, 2, 4, 8, 16, 32, 64):
        costs.observe(n, 1 + each * (n - 1))
    return PromptLookup(costs)


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
        lookup.observe(n, n)
    longest = len(lookup.propose(TEXT))
    assert n < longest <= LONGEST
    lookup.observe(longest, 1)
    assert 0 < len(lookup.propose(TEXT)) < longest


def test_dear_guesses_make_short_drafts() -> None:
    """Where a guess costs two fifths of a step, and nine of ten are right, long drafts do not pay."""
    assert 0 < len(warm(0.4).propose(TEXT)) < len(warm(0.01).propose(TEXT))


def test_drafts_stop_when_plain_steps_are_faster_and_are_tried_again_later() -> None:
    lookup = warm(0.4)
    assert lookup.propose(TEXT)
    while lookup.propose(TEXT):
        lookup.observe(4, 0)
    silent = 1
    while not lookup.propose(TEXT):
        silent += 1
    assert silent == PAUSE
    while lookup.propose(TEXT):
        lookup.observe(4, 0)
    silent = 1
    while not lookup.propose(TEXT):
        silent += 1
    assert silent == 2 * PAUSE, "each time longer"


def test_without_a_measured_step_there_is_nothing_to_compare_with() -> None:
    assert PromptLookup(StepCosts()).propose(TEXT) == []
