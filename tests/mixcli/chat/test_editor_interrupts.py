"""Ctrl-C in an editor is the editor's: vi and others give it a meaning of their own."""

import os
import signal
import sys
import termios
from pathlib import Path

import pytest

from tests.mixcli.chat.conftest import Stage

EDITOR = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: print("its own Ctrl-C", flush=True))
print("editing", flush=True)
text = sys.stdin.readline()
open(sys.argv[1], "w").write(text)
"""


@pytest.fixture
def editor(tmp_path: Path) -> str:
    path = tmp_path / "editor.py"
    path.write_text(EDITOR)
    return f"{sys.executable} {path}"


@pytest.mark.parametrize("keys", ["/edit\r", "\x07", "\x18\x05"])
def test_ctrl_c_in_an_editor_loses_no_text(stage: Stage, editor: str, keys: str) -> None:
    host = stage.host(["first"], ["second"])
    chat = stage.chat(host, EDITOR=editor, VISUAL="")
    chat.enter("Go")
    chat.wait_for_prompt(2)
    chat.type(keys)
    chat.wait_for("editing")
    chat.type("\x03")
    chat.wait_for("its own Ctrl-C")
    chat.type("written in an editor\r")
    chat.wait_for("written in an editor")
    if keys == "\x07":
        chat.wait_for(lambda: "written in an editor" in chat.display[chat.screen.cursor.y])
        chat.type("\r")
    chat.wait_for_prompt(3)
    assert host.requests[1]["messages"][-1]["content"] == "written in an editor"
    chat.type("\x03")
    assert chat.wait_for_end() == 130


@pytest.mark.parametrize("keys", ["/edit\r", "\x07"])
def test_a_chat_that_is_ended_ends_its_editor(stage: Stage, editor: str, keys: str) -> None:
    chat = stage.terminal("chat", "-m", str(stage.host().path), EDITOR=editor, VISUAL="")
    before = termios.tcgetattr(chat.process.child_fd)
    chat.wait_for_prompt(1)
    chat.type(keys)
    chat.wait_for("editing")
    os.kill(chat.process.pid, signal.SIGTERM)
    while chat.read():  # until the last of them has left the terminal
        pass
    assert termios.tcgetattr(chat.process.child_fd) == before
    assert chat.wait_for_end() == 143
    assert chat.raw.rfind("\x1b[?2004h") < chat.raw.rfind("\x1b[?2004l")  # pastes are plain


def test_what_is_typed_stays_where_the_editor_fails(stage: Stage) -> None:
    chat = stage.chat(stage.host(), EDITOR="false", VISUAL="")
    chat.type("some words")
    chat.wait_for("some words")
    chat.type("\x07")
    chat.wait_for("the editor false failed (exit code 1)")
    chat.wait_for(lambda: ">>> some words" in chat.display[chat.screen.cursor.y])
