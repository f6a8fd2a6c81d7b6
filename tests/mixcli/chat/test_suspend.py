"""Ctrl-Z in a chat: the shell finds the terminal as it expects it, and `fg` continues where it stopped."""

import shlex
import sys
import threading

import pytest

from tests.mixcli.chat.conftest import Stage

pytestmark = pytest.mark.slow


def test_ctrl_z_stops_a_chat_and_fg_continues_it(stage: Stage) -> None:
    host = stage.host(["Once upon", " a time", threading.Event()], ["second"])
    shell = stage.shell("exec bash --norc --noprofile -i")
    shell.type(f"{shlex.join([sys.executable, '-m', 'mixcli', 'chat', '-m', str(host.path)])}\r")
    shell.wait_for_prompt(1)
    shell.enter("Tell")
    shell.wait_for("a time")
    shell.type("\x1a")
    shell.wait_for("Stopped")
    assert shell.raw.rfind("\x1b[?25l") < shell.raw.rfind("\x1b[?25h")  # the cursor is shown
    shell.type("fg\r")
    shell.wait_for(lambda: "mixcli chat" in shell.text.rpartition("Stopped")[2].partition("\n")[2])
    shell.type("\x03")
    shell.wait_for("(stopped)")
    shell.wait_for_prompt(2)
    shell.type("\x1a")
    shell.wait_for(lambda: shell.text.count("Stopped") == 2)
    shell.type("fg\r")
    shell.wait_for(shell.ready)
    shell.enter("And then?")
    shell.wait_for("second")
    assert host.requests[1]["messages"][-1]["content"] == "And then?"
