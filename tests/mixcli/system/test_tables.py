"""Tables on a terminal, as wide as it is."""

import os
import re

import pytest

from mixcli.system.console import console

NAME = "ministral-3-14b-reasoning"
WORDS = "Q4_K_M, 100 to 140 tok/s, as far as rates are known"


@pytest.mark.parametrize(("width", "is_whole"), [(60, True), (2 * len(NAME) - 1, False)])
def test_a_models_name_stays_in_one_line(width: int, is_whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the other columns would have less than half the width."""
    monkeypatch.setenv("COLUMNS", str(width))
    ours, theirs = os.openpty()
    with os.fdopen(ours, "rb", buffering=0) as terminal, os.fdopen(theirs, "w", encoding="utf-8") as out:
        monkeypatch.setattr("sys.stdout", out)
        console.table(("MODEL", "LICENSE", "SUITS"), [(NAME, "Apache-2.0 " * 3, WORDS)])
        out.flush()
        text = terminal.read(4096).decode()
    assert (NAME in text) == is_whole
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines())) <= width
