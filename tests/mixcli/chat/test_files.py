"""Files in messages: a fence that the file cannot end, in time that grows with the file and not with its square."""

import time

import pytest

from mixcli.chat.files import MAX_FILE, Attachment


@pytest.mark.parametrize(("text", "n"), [("x", 3), ("a `b` c", 3), ("```\nx\n```", 4), ("`````", 6), ("", 3)])
def test_the_fence_is_longer_than_any_in_the_text(text: str, n: int) -> None:
    block = Attachment("x.md", text).block()
    assert block.splitlines()[1] == "`" * n + "md"
    assert block.splitlines()[-1] == "`" * n


def test_a_file_of_nothing_but_fences_is_quick() -> None:
    began = time.monotonic()
    assert Attachment("x", "`" * MAX_FILE).block().endswith("`" * (MAX_FILE + 1))
    assert time.monotonic() - began < 5
