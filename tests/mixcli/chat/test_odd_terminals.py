"""A chat on terminals that say they have no columns, or one; and with a pipe that is not text behind it."""

import pytest

from tests.conftest import mixcli_process
from tests.mixcli.chat.conftest import Stage


@pytest.mark.parametrize("columns", [0, 1])
def test_a_terminal_without_room_still_gets_its_answer(stage: Stage, columns: int) -> None:
    host = stage.host(["Hello **world**.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\nBye 東京."])
    chat = stage.terminal("chat", "-m", str(host.path), rows=columns, columns=columns)
    chat.screen.resize(24, 80)  # of the emulator, which cannot draw on nothing
    chat.wait_for(lambda: "\x1b[?2004h" in chat.raw)
    chat.type("Hi\r")
    chat.wait_for(lambda: "Bye" in chat.raw)
    chat.type("\x04")
    assert chat.wait_for_end() == 0
    assert "Traceback" not in chat.raw
    assert len(host.requests) == 1


def test_a_pipe_that_is_not_text_is_refused(stage: Stage) -> None:
    host = stage.host(["never asked"])
    done = mixcli_process(stage.home, ["chat", "-m", str(host.path)], stdin="\x00\x01\x02 binary\n")
    assert done.returncode == 2
    assert "the piped text is not text: byte 1 is NUL" in done.stderr
    assert not host.requests


def test_bytes_that_are_not_utf8_are_replaced_and_counted_once(stage: Stage) -> None:
    host = stage.host(["Hello."], ["Bye."])
    chat = stage.terminal("chat", "-m", str(host.path))
    chat.wait_for(lambda: "\x1b[?2004h" in chat.raw)
    chat.type_bytes(b"/system caf\xe9\r")
    chat.wait_for("1 byte of what was typed was not UTF-8")
    chat.type_bytes(b"A \xe9\xe9 here\r")
    chat.wait_for("2 bytes of what was typed were not UTF-8")
    chat.wait_for("Hello.")
    chat.type("\x04")
    assert chat.wait_for_end() == 0
    contents = [message["content"] for message in host.requests[0]["messages"]]
    assert contents == ["caf\ufffd", "A \ufffd\ufffd here"]
