"""Files in messages: a fence that the file cannot end, in time that grows with the file and not with its square."""

import time
from pathlib import Path

import pytest

from mixcli.chat.files import MAX_FILE, Attachment, write_new
from mixcli.errors import UsageError


@pytest.mark.parametrize(("text", "n"), [("x", 3), ("a `b` c", 3), ("```\nx\n```", 4), ("`````", 6), ("", 3)])
def test_the_fence_is_longer_than_any_in_the_text(text: str, n: int) -> None:
    block = Attachment("x.md", text).block()
    assert block.splitlines()[1] == "`" * n + "md"
    assert block.splitlines()[-1] == "`" * n


def test_a_file_of_nothing_but_fences_is_quick() -> None:
    began = time.monotonic()
    assert Attachment("x", "`" * MAX_FILE).block().endswith("`" * (MAX_FILE + 1))
    assert time.monotonic() - began < 5


def test_a_file_in_a_folder_that_is_not_there_has_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder .*/nodir; make it first"):
        write_new(tmp_path / "nodir" / "x", "text")
