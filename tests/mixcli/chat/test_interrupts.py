"""Ctrl-C in a chat, wherever it comes, and what is typed while the model loads or answers."""

import os
import signal
import subprocess
import sys
import termios
import threading
from typing import cast

import pytest

from mixcli.chat.model_loader import READY, ChatModel, HeldModel
from mixcli.errors import UsageError
from tests.conftest import _environment
from tests.mixcli.chat.conftest import Stage
from tests.mixcli.chat.test_deaths import said
from tests.support.waiting import LIMIT


def test_what_is_typed_and_pasted_meanwhile_waits_for_the_prompt(stage: Stage) -> None:
    more = threading.Event()
    host = stage.host(["thinking", more, " done"], ["second"])
    chat = stage.chat(host)
    chat.enter("Go")
    chat.wait_for("thinking")
    chat.type("typed ")
    chat.paste("and\npasted")
    chat.read(0.2)
    assert "typed" not in chat.text
    more.set()
    chat.wait_for("pasted")
    chat.type("\r")
    chat.wait_for_prompt(3)
    assert host.requests[1]["messages"][-1]["content"] == "typed and\npasted"


def test_ctrl_c_in_an_answer_keeps_what_came(stage: Stage) -> None:
    never = threading.Event()
    host = stage.host(["Once upon", " a time", never], ["again"])
    chat = stage.chat(host)
    chat.enter("Tell")
    chat.wait_for("a time")
    chat.type("\x03")
    chat.wait_for("(stopped)")
    assert host.hung_up.wait(LIMIT)  # the model stops too
    chat.wait_for_prompt(2)
    chat.enter("And then?")
    chat.wait_for_prompt(3)
    assert [one["content"] for one in host.requests[1]["messages"]] == [
        "Tell",
        "Once upon a time",
        "And then?",
    ]
    chat.type("\x03")
    assert chat.wait_for_end() == 130


def test_the_line_at_the_bottom_counts_while_an_answer_comes_and_after_it_was_stopped(stage: Stage) -> None:
    never = threading.Event()
    reading = {"choices": [], "prompt_progress": {"total": 400, "cache": 0, "processed": 400, "time_ms": 9}}
    host = stage.host([reading, "four words in it", never])
    chat = stage.chat(host)
    chat.enter("word " * 45)
    chat.wait_for("context 40 %")
    chat.type("\x03")
    chat.wait_for_prompt(2)
    chat.wait_for("context 5 %")  # the scripted host counts words
    chat.enter("/stats")
    chat.wait_for("about 1 token until it stopped")


def test_what_was_stopped_is_marked_when_it_is_shown_again(stage: Stage) -> None:
    host = stage.host(["Once", threading.Event()])
    with stage.chat(host) as chat:
        chat.enter("Tell")
        chat.wait_for("Once")
        chat.type("\x03")
        chat.wait_for_prompt(2)
    again = stage.chat(host, "--continue")
    assert [line for line in again.lines if line][:3] == ["> Tell", "Once", "(stopped)"]


def test_ctrl_c_while_the_prompt_is_read(stage: Stage) -> None:
    never = threading.Event()
    reading = {"choices": [], "prompt_progress": {"total": 4000, "cache": 0, "processed": 1000, "time_ms": 9}}
    host = stage.host([reading, never], ["fine"])
    chat = stage.chat(host)
    chat.enter("A long one")
    chat.wait_for("prefill 1,000 of 4,000 tokens (25 %)")
    chat.type("\x03")
    chat.wait_for("(stopped)")
    assert host.hung_up.wait(LIMIT)
    chat.wait_for_prompt(2)
    assert "prefill" not in chat.text
    chat.enter("/stats")
    chat.wait_for("stopped before its first token")
    chat.wait_for_prompt(3)
    chat.enter("A short one")
    chat.wait_for_prompt(4)
    # a question without a word of answer is not sent again
    assert [one["content"] for one in host.requests[1]["messages"]] == ["A short one"]


def test_typing_is_possible_while_the_model_loads(stage: Stage) -> None:
    host = stage.host(["loaded"])
    host.ready.clear()
    chat = stage.chat(host)
    chat.wait_for("loading")
    chat.enter("early bird")
    chat.wait_for(lambda: chat.raw.count("loading") > 1)
    assert not host.requests
    chat.type("second")
    chat.read(0.3)
    assert "second" not in chat.text
    host.ready.set()
    chat.wait_for(lambda: chat.display[chat.screen.cursor.y] == ">>> second")
    assert "loaded" in chat.text


def test_ctrl_c_while_the_model_loads_gives_the_message_back(stage: Stage) -> None:
    host = stage.host(["loaded"])
    host.ready.clear()
    chat = stage.chat(host)
    chat.enter("early bird")
    chat.wait_for(lambda: "\x1b[2mloading" in chat.raw)
    chat.type("\x03")
    chat.wait_for("(cancelled")
    chat.wait_for("(your message is back in the input line)")
    chat.wait_for(lambda: chat.display[chat.screen.cursor.y] == ">>> early bird")
    host.ready.set()
    chat.type("\r")
    chat.wait_for_prompt(3)
    assert [one["content"] for one in host.requests[0]["messages"]] == ["early bird"]


class Reluctant(ChatModel):
    """A model that can be loaded at the second try."""

    n_tries = 0

    def _load(self) -> None:
        self.n_tries += 1
        if self.n_tries == 1:
            self._fail(UsageError("not yet"))
        else:
            self._show(READY)

    def _held(self) -> HeldModel:
        assert self.state.status == READY
        return cast(HeldModel, self)


def test_a_load_whose_beginning_is_interrupted_begins_with_the_next_message() -> None:
    """The message after it ended the chat with a traceback."""
    model = Reluctant("x", "x")
    with pytest.raises(UsageError, match="not yet"):
        model.wait(lambda _: None)

    def interrupt() -> None:
        raise KeyboardInterrupt

    model.changed = interrupt
    with pytest.raises(KeyboardInterrupt):
        model.wait(lambda _: None)
    model.changed = lambda: None
    assert cast(Reluctant, model.wait(lambda _: None)).n_tries == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("is_answering", [False, True])
def test_a_signal_that_ends_a_chat_leaves_the_terminal_and_the_answer(
    stage: Stage, number: int, code: int, is_answering: bool
) -> None:
    host = stage.host(["Once upon", " a time", threading.Event()])
    chat = stage.terminal("chat", "-m", str(host.path))
    before = termios.tcgetattr(chat.process.child_fd)
    chat.wait_for_prompt(1)
    if is_answering:
        chat.enter("Tell")
        chat.wait_for("a time")
    os.kill(chat.process.pid, number)
    while chat.read():
        pass
    assert termios.tcgetattr(chat.process.child_fd) == before
    assert chat.wait_for_end() == code
    assert chat.raw.rfind("\x1b[?25l") <= chat.raw.rfind("\x1b[?25h")  # the cursor is shown
    assert chat.raw.rfind("\x1b[?2004h") < chat.raw.rfind("\x1b[?2004l")  # pastes are plain
    if is_answering:
        assert "context" not in chat.text.rpartition("Once upon a time")[2]  # the line below the answer
        assert said(stage.home, "tell")[1] == ("assistant", "Once upon a time", "cut")


def test_ctrl_c_ends_a_chat_whose_messages_come_from_a_pipe(stage: Stage) -> None:
    """It ended one answer and continued with the next line."""
    host = stage.host(["Once upon\n", threading.Event()], ["second"])
    with subprocess.Popen(
        [sys.executable, "-m", "mixcli", "chat", "-m", str(host.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(stage.home),
    ) as chat:
        assert chat.stdin and chat.stdout
        chat.stdin.write(b"Tell\nAgain\n")
        chat.stdin.close()
        assert chat.stdout.readline() == b"Once upon\n"
        chat.send_signal(signal.SIGINT)
        chat.wait(LIMIT)
        assert chat.stderr and chat.stderr.read().endswith(b"interrupted\n")
    assert chat.returncode == 130
    assert len(host.requests) == 1
    assert said(stage.home, "tell")[1] == ("assistant", "Once upon\n", "stopped")
