"""Questions on a terminal: yes, no, the end of the input, and Ctrl-C, which ends a command with 130 and without a word."""

import sys
from pathlib import Path

import pytest

from mixcli.chat.sessions import Sessions
from tests.conftest import Runner
from tests.support.terminal import Terminal

QUESTION = "Remove trip (0 messages)? [y/N]:"


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXCLI_HOME", str(tmp_path))
    store = Sessions()
    store.create("trip", "demo", "", {})
    store.close()
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "code", "told"),
    [
        ("y\r", 0, "removed trip (0 messages)"),
        ("n\r", 1, "mixcli: nothing was removed"),
        ("what?\r\r", 1, "mixcli: nothing was removed"),
        ("\x04", 1, "mixcli: nothing was removed"),
        ("\x03", 130, "^C"),
    ],
)
def test_an_answer(kept: Path, typed: str, code: int, told: list[str]) -> None:
    with Terminal(kept, "sessions", "rm", "trip") as terminal:
        terminal.wait_for(QUESTION)
        terminal.type(typed)
        assert terminal.wait_for_end() == code
        assert told in terminal.text
        assert "interrupted" not in terminal.text
    assert len(Sessions().all()) == (0 if code == 0 else 1)


def test_where_nobody_can_be_asked(kept: Path, mixcli: Runner) -> None:
    done = mixcli("sessions", "rm", "trip", stdin=b"y\n", MIXCLI_HOME=str(kept))
    assert done.returncode == 2
    assert "stdin is not a terminal; pass --yes to remove trip" in done.stderr


def test_a_question_that_would_not_be_seen_is_not_asked(kept: Path) -> None:
    command = f"{sys.executable} -m mixcli sessions rm trip 2>{kept}/said; echo code $?; cat {kept}/said"
    with Terminal(kept, shell=command) as terminal:
        terminal.wait_for("code 2")
        terminal.wait_for("stderr is not a terminal; pass --yes to remove trip")
    assert len(Sessions().all()) == 1
