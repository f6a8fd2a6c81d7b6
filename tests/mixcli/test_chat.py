"""mixcli chat in a real pseudo-terminal, and from a pipe."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.conftest import Runner

pytestmark = pytest.mark.model


@pytest.fixture
def chat(mixcli: Runner, with_demo: Path) -> Iterator["pexpect.spawn[str]"]:
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "mixcli", "chat", "-m", "demo", "-t", "0"],
        encoding="utf-8",
        timeout=60,
        dimensions=(24, 80),
    )
    terminal.expect(">>> ")
    yield terminal
    terminal.close(force=True)


def test_it_answers_and_remembers(chat: "pexpect.spawn[str]") -> None:
    chat.sendline("What is the capital of France?")
    chat.expect("Paris")
    chat.expect("\n>>> ")
    chat.sendline("/clear")
    chat.expect(">>> ")
    chat.sendeof()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_ctrl_c_stops_the_answer_and_keeps_the_session(chat: "pexpect.spawn[str]") -> None:
    chat.sendline("Tell me a very long story about the sea.")
    chat.expect("sea")
    chat.expect(r"\w+")
    chat.sendintr()
    chat.expect(r"\(stopped\)", timeout=2)
    chat.expect(">>> ")
    chat.sendline("What is the capital of France?")
    chat.expect("Paris")
    chat.expect("\n>>> ")
    chat.sendintr()
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 130


def test_a_typo_in_a_slash_command(chat: "pexpect.spawn[str]") -> None:
    chat.sendline("/qiut")
    chat.expect("did you mean /quit")
    chat.sendline("/help")
    chat.expect("/clear")
    chat.expect(">>> ")
    chat.sendline("/quit")
    chat.expect(pexpect.EOF)
    chat.close()
    assert chat.exitstatus == 0


def test_the_host_dies_and_the_conversation_goes_on(chat: "pexpect.spawn[str]", mixcli: Runner) -> None:
    import json

    (loaded,) = json.loads(mixcli("ps", "--json").stdout)
    os.kill(loaded["pid"], signal.SIGKILL)
    chat.sendline("What is the capital of France?")
    chat.expect("conversation is kept")
    chat.expect(">>> ")
    chat.sendline("What is the capital of France?")
    chat.expect("Paris")


def test_from_a_pipe_every_line_is_a_message(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli(
        "chat", "-m", "demo", "-t", "0", stdin="What is the capital of France?\n/quit\nnever read\n"
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert ">>>" not in done.stdout
    assert "\x1b" not in done.stdout
