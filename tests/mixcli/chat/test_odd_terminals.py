"""A chat on terminals that say they have no columns, or one; and with a pipe that is not text behind it."""

import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import mixcli_process
from tests.mixcli.chat.conftest import Stage
from tests.support.terminal import Terminal


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


def test_the_terminal_never_takes_keys_itself_between_two_prompts(stage: Stage) -> None:
    """A terminal that edits lines takes Ctrl-D for the end of one, and a Ctrl-D pressed just after an answer would be lost."""
    host = stage.host(*[[f"Answer {n}."] for n in range(5)])
    chat = stage.terminal("chat", "-m", str(host.path))
    chat.wait_for_prompt(1)
    with _modes_seen(chat) as modes:
        for n in range(5):
            chat.type("Hi\r")
            chat.wait_for(f"Answer {n}.")
            chat.wait_for_prompt(n + 2)
    assert len(modes) >= 2, "the prompt's own, and another one during an answer"
    assert not any(mode & termios.ICANON for mode in modes)
    chat.type("\x04")
    assert chat.wait_for_end() == 0


@contextmanager
def _modes_seen(chat: Terminal) -> Iterator[set[int]]:
    """Look at the terminal's local modes again and again while the block runs."""
    seen: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.0002):
            seen.add(termios.tcgetattr(chat.process.child_fd)[3])

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()
