"""Questions to several processes at once: one that hangs holds up no other, and is not asked twice."""

import threading

import pytest

from mixcli.client.inquiries import Inquiries
from tests.support.waiting import wait_for


def test_one_that_hangs_holds_up_no_other_and_is_asked_once() -> None:
    release, n_asked = threading.Event(), 0

    def slow() -> str:
        nonlocal n_asked
        n_asked += 1
        release.wait()
        return "late"

    inquiries: Inquiries[str] = Inquiries()
    for answer in ("first", "second"):
        inquiries.ask({"hangs": slow, "answers": lambda answer=answer: answer})
        wait_for(lambda answer=answer: inquiries.hear(0)["answers"].answer == answer)
    heard = inquiries.hear(0)["hangs"]
    assert (heard.answer, heard.overdue > 0, n_asked) == (None, True, 1)
    release.set()
    wait_for(lambda: inquiries.hear(0)["hangs"] == ("late", 0.0))


def test_what_is_not_there_any_more_is_forgotten() -> None:
    inquiries: Inquiries[int] = Inquiries()
    inquiries.ask({"a": lambda: 1, "b": lambda: 2})
    assert {key: heard.answer for key, heard in inquiries.hear(60).items()} == {"a": 1, "b": 2}
    inquiries.ask({"b": lambda: 3})
    assert inquiries.hear(60) == {"b": (3, 0.0)}


def test_an_error_is_raised_where_the_answer_is_heard() -> None:
    def fails() -> int:
        raise ValueError("a bug")

    inquiries: Inquiries[int] = Inquiries()
    inquiries.ask({"a": fails})
    with pytest.raises(ValueError, match="a bug"):
        inquiries.hear(60)
