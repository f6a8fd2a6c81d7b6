"""mixcli chat with the demo model: a terminal, a pipe, and what the engine knows of a conversation."""

import re
from pathlib import Path

import pytest

from mixcli.system.hardware import gpu_backends
from tests.conftest import Runner
from tests.mixcli.chat.conftest import Stage

pytestmark = pytest.mark.model


@pytest.mark.slow
def test_it_answers_and_remembers(stage: Stage, with_demo: Path, mixcli: Runner) -> None:
    chat = stage.terminal(
        "chat", "-m", "demo", "--temperature", "0", "What is the capital of France?", rows=60
    )
    chat.wait_for("Paris")
    chat.wait_for_prompt(1)
    assert re.search(
        r"^demo:Q4_K_M · [\d.]+ [MG]B on CPU · context [\d,]+ tokens$", chat.text, re.MULTILINE
    ), chat.text
    chat.enter("/stats")
    chat.wait_for_prompt(2)
    for row in ("time to first token", "prefill", "decode", "context"):
        assert row in chat.text
    chat.enter("/context")
    chat.wait_for("total")
    chat.wait_for_prompt(3)
    chat.enter("/experts")
    chat.wait_for("expert 7")
    chat.wait_for_prompt(4)
    chat.enter("/plan")
    chat.wait_for("llama.cpp -c")
    chat.wait_for_prompt(5)
    if "cuda" not in gpu_backends():
        chat.enter("/profile rtx-4090")
        chat.wait_for("or use /profile auto")
        chat.wait_for_prompt(6)  # and the model stays as it was loaded
    chat.type("\x04")
    assert chat.wait_for_end() == 0


@pytest.mark.slow
def test_a_resumed_conversation_is_known_to_the_engine(stage: Stage, with_demo: Path, mixcli: Runner) -> None:
    with stage.terminal("chat", "-m", "demo", "--temperature", "0", "--max-tokens", "20", rows=40) as chat:
        chat.wait_for_prompt(1)
        chat.enter("What is the capital of France? " + "Be brief and friendly, please. " * 12)
        chat.wait_for_prompt(2)
        assert "no model is loaded" not in mixcli("stop", "--all").stderr  # it leaves, with what it knew
        chat.type("\x04")
        chat.wait_for_end()
    chat = stage.terminal("chat", "--continue", "--temperature", "0", "--max-tokens", "20", rows=40)
    chat.wait_for_prompt(1)
    assert "(what-is-the-capital-of, 2 messages)" in chat.text
    chat.enter("And of Italy?")
    chat.wait_for_prompt(2)
    chat.enter("/stats")
    chat.wait_for("cached")
    known = chat.text.split(" of them cached")[0].split()[-1]
    assert int(known) > 64, chat.text


@pytest.mark.slow
def test_from_a_pipe_every_line_is_a_message(mixcli: Runner, with_demo: Path) -> None:
    done = mixcli(
        "chat",
        "-m",
        "demo",
        "--temperature",
        "0",
        stdin='What is the capital of France?\n"""\nSay\nyes.\n"""\n/quit\nnever read\n',
    )
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert ">>>" not in done.stdout
    assert "\x1b" not in done.stdout
    shown = mixcli("sessions", "show", "what-is-the-capital-of")
    assert "Say\nyes." in shown.stdout and "never read" not in shown.stdout


def test_an_unknown_model_ends_it_at_once(stage: Stage, mixcli: Runner) -> None:
    chat = stage.terminal("chat", "-m", "nothing-of-that-name")
    assert chat.wait_for_end() == 2
    assert "not found" in chat.text
    done = mixcli("chat", "-m", "nothing-of-that-name", stdin="Hello\n")
    assert done.returncode == 2, done.stderr
    assert "not found" in done.stderr


@pytest.mark.slow
def test_a_turn_reads_only_what_is_new(mixcli: Runner, with_demo: Path) -> None:
    """What the time to first token of a long conversation rests upon; bench.chat measures the time itself."""
    turns = [f"Tell me of the number {number}, please.\n/stats\n" for number in range(11, 23)]
    done = mixcli("chat", "-m", "demo", "--temperature", "0", "--max-tokens", "8", stdin="".join(turns))
    assert done.returncode == 0, done.stderr
    prompt = [int(n) for n in re.findall(r"prompt +(\d+) tokens", done.stderr)]
    read = [int(n) for n in re.findall(r"prefill +(\d+) tokens", done.stderr)]
    assert len(read) == len(turns)
    assert prompt[-1] > prompt[1] + 10 * read[1]
    assert max(read[1:]) <= read[1] + 2, read
