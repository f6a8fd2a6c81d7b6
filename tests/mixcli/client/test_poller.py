"""Requests to several processes at once: one that hangs delays no other, and is not sent twice."""

import threading

import pytest

from mixcli.client.poller import Poller
from tests.support.waiting import wait_for


def test_one_that_hangs_delays_no_other_and_is_sent_once() -> None:
    release, n_sent = threading.Event(), 0

    def slow() -> str:
        nonlocal n_sent
        n_sent += 1
        release.wait()
        return "late"

    poller: Poller[str] = Poller()
    for value in ("first", "second"):
        poller.send({"hangs": slow, "replies": lambda value=value: value})
        wait_for(lambda value=value: poller.replies(0)["replies"].value == value)
    reply = poller.replies(0)["hangs"]
    assert (reply.value, reply.overdue > 0, n_sent) == (None, True, 1)
    release.set()
    wait_for(lambda: poller.replies(0)["hangs"] == ("late", 0.0))


def test_what_is_not_there_any_more_is_forgotten() -> None:
    poller: Poller[int] = Poller()
    poller.send({"a": lambda: 1, "b": lambda: 2})
    assert {key: reply.value for key, reply in poller.replies(60).items()} == {"a": 1, "b": 2}
    poller.send({"b": lambda: 3})
    assert poller.replies(60) == {"b": (3, 0.0)}


def test_an_error_is_raised_where_the_reply_is_read() -> None:
    def fails() -> int:
        raise ValueError("a bug")

    poller: Poller[int] = Poller()
    poller.send({"a": fails})
    with pytest.raises(ValueError, match="a bug"):
        poller.replies(60)
