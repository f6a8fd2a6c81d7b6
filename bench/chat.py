"""What a person waits for in `mixcli chat`: the first prompt, and the first token of a late turn. It needs the demo model in the store.

Both are seen from outside, in a home of its own that borrows the store's models: the prompt as it is written to a pseudo-terminal, the
tokens as they come out of a pipe. Ends with 1 when a promise is not kept.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pexpect

from bench.estimate import Promise, Verdict, findings
from bench.process import as_installed
from bench.turns import Side, all_turns
from mixcli.system import paths

RUNS, CONVERSATIONS = 20, 6
N_TURNS = 30
EARLY, LATE = slice(1, 4), slice(-3, None)  # turns whose median counts: 2 to 4, and the last three
PROMPT = ">>>"
WHERE = "\x1b[6n"  # a program asks where the cursor is
QUESTION = "Tell me one thing about the number {}, in a short and simple sentence."
READY = b"ready, context"  # what /model says, so the answer before it has ended
TIMEOUT = 60.0  # seconds

PROMISES = (
    Promise("from the start of the process to the first prompt, ms", ("start", "ms"), None, "at most", 300),
    Promise(
        "time to first token of the last turns, in terms of turns 2 to 4",
        ("conversation", "growth"),
        None,
        "at most",
        1.3,
        unit="x",
    ),
)

MIXCLI = (sys.executable, "-m", "mixcli")
CHAT = ("chat", "-m", "demo", "--keep-alive", "0")


def seconds_to_prompt(environment: dict[str, str]) -> float:
    """Start a chat in a pseudo-terminal and give the seconds until its prompt is written."""
    began = time.monotonic()
    chat = pexpect.spawn(
        MIXCLI[0], [*MIXCLI[1:], *CHAT], encoding="utf-8", dimensions=(24, 100), env=environment
    )
    chat.delaybeforesend = None
    while chat.expect_exact([PROMPT, WHERE], TIMEOUT):
        chat.send("\x1b[1;1R")
    seconds = time.monotonic() - began
    chat.close(force=True)
    subprocess.run([*MIXCLI, "stop", "--all", "-q"], env=environment, check=False, stderr=subprocess.DEVNULL)
    return seconds


def seconds_to_first(environment: dict[str, str]) -> list[float]:
    """Hold one conversation through a pipe and give each turn's seconds from the question to the first of the answer."""
    command = (*MIXCLI, *CHAT, "--temperature", "0", "--max-tokens", "24")
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as chat:
        assert chat.stdin and chat.stdout
        said, heard = chat.stdin, chat.stdout.fileno()

        def say(line: str) -> None:
            said.write(line.encode() + b"\n")
            said.flush()

        def until_ready() -> None:
            say("/context")  # waits for the model
            say("/model")
            text = b""
            while READY not in text:
                piece = os.read(heard, 65536)
                if not piece:
                    raise SystemExit(f"the chat has ended:\n{text.decode(errors='replace')}")
                text += piece

        until_ready()
        seconds = []
        for turn in range(N_TURNS):
            began = time.monotonic()
            say(QUESTION.format(11 + turn))
            os.read(heard, 1)
            seconds.append(time.monotonic() - began)
            until_ready()
    return seconds


def growth(seconds: Sequence[float]) -> float:
    """Return the time to first token of the last turns in terms of the early ones."""
    return median(seconds[LATE]) / median(seconds[EARLY])


def main() -> None:
    """Measure both, print what came out, and end with 1 when it is more than was promised."""
    parser = argparse.ArgumentParser(prog="python -m bench.chat", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS, help="of the first prompt (%(default)s)")
    parser.add_argument("--conversations", type=int, default=CONVERSATIONS, help="(%(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "data").mkdir()
        (Path(folder) / "data" / "models").symlink_to(paths.models_dir())
        environment = as_installed(MIXCLI_HOME=folder, TERM="xterm-256color")
        seconds_to_prompt(environment)  # brings the files into the page cache, compiled
        start = Side("start", lambda: {"ms": 1000 * seconds_to_prompt(environment)})
        talk = Side("conversation", lambda: _conversation(environment))
        rounds = {**all_turns([start], options.runs), **all_turns([talk], options.conversations)}
    found = findings(PROMISES, rounds)
    print("\n".join(one.line for one in found))
    sys.exit(any(one.verdict == Verdict.NOT_KEPT for one in found))


def _conversation(environment: dict[str, str]) -> dict[str, float]:
    seconds = seconds_to_first(environment)
    print(f"    time to first token, ms: {_milliseconds(seconds)}")
    return {"growth": growth(seconds)}


def _milliseconds(seconds: Sequence[float]) -> str:
    return " ".join(f"{1000 * one:.0f}" for one in seconds)


if __name__ == "__main__":
    main()
