"""What a kill on either side, and a disk that is full, leave of a conversation."""

import itertools
import json
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Runner, mixcli_process
from tests.mixcli.chat.conftest import Stage
from tests.mixcli.chat.scripted import DIE
from tests.support.terminal import Terminal


def said(home: Path, name: str) -> list[tuple[str, str, str]]:
    """Give role, text and state of a session's messages, as `mixcli sessions show --json` writes them."""
    done = mixcli_process(home, ["sessions", "show", name, "--json"])
    assert done.returncode == 0, done.stderr
    return [(one["role"], one["content"], one["state"]) for one in json.loads(done.stdout)["messages"]]


@pytest.mark.slow
def test_killing_the_front_end_keeps_what_had_arrived(stage: Stage) -> None:
    def endless() -> Iterator[str]:
        for i in itertools.count():
            yield f"word{i} "
            if i % 20 == 0:
                time.sleep(0.1)

    host = stage.host(endless())
    chat = stage.chat(host)
    chat.enter("Tell me everything")
    chat.wait_for("word200")
    chat.process.kill(signal.SIGKILL)
    chat.process.wait()
    (_, question, _), (_, answer, state) = said(stage.home, "tell-me-everything")
    assert question == "Tell me everything"
    assert answer.startswith("word0 word1 word2 ")
    assert "word100" in answer  # what came in the last half second may be missing
    assert state == "partial"
    again = stage.chat(host, "--continue")
    assert "word100" in again.text and "tell-me-everything, 2 messages" in again.text
    assert said(stage.home, "tell-me-everything")[1][2] == "cut"
    done = mixcli_process(stage.home, ["sessions", "search", "word100", "--json"])
    assert [hit["session"] for hit in json.loads(done.stdout)] == ["tell-me-everything"]


@pytest.mark.slow
def test_killing_the_front_end_while_the_model_loads_keeps_the_question(stage: Stage) -> None:
    host = stage.host(["never"])
    host.ready.clear()
    chat = stage.chat(host)
    chat.enter("Are you there")
    chat.wait_for(lambda: "\x1b[2mloading" in chat.raw)
    chat.process.kill(signal.SIGKILL)
    chat.process.wait()
    assert said(stage.home, "are-you-there")[0] == ("user", "Are you there", "done")


def test_the_host_dies_in_the_middle(stage: Stage) -> None:
    host = stage.host(["Half of", " it", DIE])
    chat = stage.chat(host)
    chat.enter("Tell")
    chat.wait_for_prompt(2)
    text = "".join(chat.text.split())  # lines are cut inside words
    said_so = "the model process crashed during the answer (last log line: the scripted host has left)"
    assert "Halfofit" in text
    assert "".join(said_so.split()) in text
    assert "saved" in text
    assert said(stage.home, "tell")[1] == ("assistant", "Half of it", "cut")
    chat.enter("More")  # the file is no model, so it cannot be loaded again: a sentence, and the chat goes on
    # what was asked stands in the prompt again
    chat.wait_for(lambda: len(chat.prompts()) == 3 and chat.display[chat.screen.cursor.y] == ">>> More")
    assert chat.text.count("warning: ") == 2 and "Traceback" not in chat.text
    chat.type("\x15")
    chat.wait_for(chat.ready)
    chat.type("\x04")
    assert chat.wait_for_end() == 0


@pytest.mark.slow
@pytest.mark.model
def test_the_host_is_killed_and_the_next_message_loads_the_model_again(
    stage: Stage, with_demo: Path, mixcli: Runner
) -> None:
    chat = stage.terminal("chat", "-m", "demo", "--temperature", "0", "--max-tokens", "600", rows=40)
    chat.wait_for_prompt(1)
    chat.enter("Tell me a very long story about the sea.")
    chat.wait_for(lambda: chat.text.count(" the ") > 2)
    (loaded,) = json.loads(mixcli("ps", "--json").stdout)
    os.kill(loaded["pid"], signal.SIGKILL)
    chat.wait_for_prompt(2)
    text = " ".join(chat.text.split())
    assert "the model process crashed during the answer (killed by signal 9" in text
    assert "the partial answer is saved" in text
    chat.enter("What is the capital of France?")
    chat.wait_for_prompt(3)
    (again,) = json.loads(mixcli("ps", "--json").stdout)
    assert again["pid"] != loaded["pid"]
    os.kill(again["pid"], signal.SIGKILL)  # while nothing is asked
    chat.enter("What is the capital of France?")
    chat.wait_for(lambda: "conversation is saved" in " ".join(chat.text.split()))
    chat.wait_for_prompt(4)
    chat.type("\x04")
    assert chat.wait_for_end() == 0
    role, answer, _ = said(stage.home, "tell-me")[-1]  # what it says depends on where the story broke off
    assert (role, bool(answer.strip())) == ("assistant", True)


@pytest.mark.slow
def test_a_full_disk_under_the_database(stage: Stage) -> None:
    """A limit on the size of files stands for the full disk: the same writes fail, in the kernel."""
    host = stage.host(["first"], ["x" * 300_000 + " second"], ["third"])
    chat = stage.chat(host, "--plain")
    chat.enter("One")
    chat.wait_for_prompt(2)
    limit = (stage.home / "data" / "chat.db-wal").stat().st_size + 4096
    resource.prlimit(chat.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    chat.enter("Two")
    chat.wait_for("conversations cannot be saved")
    chat.wait_for(lambda: "second" in chat.raw and chat.ready())
    chat.enter("Three")
    chat.wait_for("third")
    chat.wait_for(chat.ready)
    assert chat.text.count("conversations cannot be saved") == 1
    assert [one["content"][:6] for one in host.requests[2]["messages"]] == [
        "One",
        "first",
        "Two",
        "xxxxxx",
        "Three",
    ]
    chat.wait_for("not saved")
    chat.enter("/retry")
    chat.wait_for(lambda: len(host.requests) == 4 and chat.ready())
    chat.type("\x04")
    assert chat.wait_for_end() == 0
    assert "Traceback" not in chat.text


def test_a_database_that_is_none(stage: Stage) -> None:
    (stage.home / "data").mkdir(parents=True, exist_ok=True)
    (stage.home / "data" / "chat.db").write_bytes(b"not a database at all" * 100)
    host = stage.host(["fine"])
    with stage.chat(host) as chat:
        assert "conversations cannot be saved" in chat.text
        chat.enter("Go")
        chat.wait_for_prompt(2)
        assert "fine" in chat.text


@pytest.mark.slow
def test_two_chats_at_once_share_the_database(stage: Stage) -> None:
    host = stage.host(["ok"])
    chats: list[Terminal] = [stage.chat(host) for _ in range(2)]
    for number in range(3):
        for which, chat in enumerate(chats):
            chat.enter(f"message {number} of chat {which}")
        for chat in chats:
            chat.wait_for_prompt(number + 2)
    for which in range(2):
        assert [one[1] for one in said(stage.home, f"message-0-of-chat-{which}")] == [
            text for number in range(3) for text in (f"message {number} of chat {which}", "ok")
        ]
