#!/usr/bin/env python3
"""Follow the README's first five minutes with the `mixcli` that comes first in PATH: python3 first_minutes.py README.md

Standard library only, so that it runs where nothing but mixcli is installed. Every command of the section's console blocks runs in a
scratch home, and what it prints is held against what the README shows: line for line, where process ids and sizes of columns may differ.
With --answers-may-differ a model may answer otherwise, as on another processor; commands must still succeed and answer something.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECTION = re.compile(r"^## The first five minutes\n(.*?)^## ", re.M | re.S)
BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.M | re.S)
PROGRESS = re.compile(r"[\w ]+: \d+ %")  # of a slow step, where stderr is not a terminal
SECONDS = 600  # of one command; the first one makes the demo model


def commands(readme: str) -> list[tuple[str, list[str] | None]]:
    """Return the section's commands, each with the lines that the README shows; None for an interactive one."""
    section = SECTION.search(readme)
    assert section is not None, "the README has no such section"
    found: list[tuple[str, list[str] | None]] = []
    for kind, body in BLOCK.findall(section[1]):
        if kind == "sh":
            found += [(line, None) for line in body.splitlines()]
            continue
        for part in re.split(r"^\$ ", body, flags=re.M)[1:]:
            command, _, shown = part.partition("\n")
            found.append((command, shown.splitlines()))
    return found


def normal(line: str) -> str:
    """Take process ids, seconds that have gone, and spaces between columns from a line."""
    text = re.sub(r"\s+", " ", line).strip()
    return re.sub(r"\bin (29\d|300) s", "in 300 s", re.sub(r"\b\d{1,7}\b(?= 490|\))", "PID", text))


def output_of(command: str) -> tuple[int, list[str]]:
    """Run a command in a shell; returns its exit code and the lines on stdout and stderr."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    return done.returncode, [line for line in done.stdout.splitlines() if not PROGRESS.fullmatch(line)]


def chat(command: str) -> tuple[int, str]:
    """Run a chat in a pseudo-terminal: one question, then Ctrl-D; returns its exit code and what was on the screen."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("/bin/sh", ["/bin/sh", "-c", f"exec {command}"])
    screen, asked, deadline = "", False, time.monotonic() + SECONDS
    quiet_since = time.monotonic()
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                piece = os.read(terminal, 1 << 16).decode("utf-8", "replace")
            except OSError:  # it has ended
                break
            if "\x1b[6n" in piece:  # asks where the cursor is
                os.write(terminal, b"\x1b[1;1R")
            screen, quiet_since = screen + piece, time.monotonic()
        elif not asked and screen and time.monotonic() - quiet_since > 1:
            os.write(terminal, b"What is the capital of France?\r")
            asked, quiet_since = True, time.monotonic()
        elif asked and "Paris" in screen and time.monotonic() - quiet_since > 2:
            os.write(terminal, b"\x04")
            quiet_since = time.monotonic()
    else:
        os.kill(pid, signal.SIGKILL)  # it did not answer, or did not end
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), screen


def main(readme: Path, *, strict: bool) -> int:
    """Follow the section; returns the number of commands that did something else."""
    wrong, text = 0, readme.read_text("utf-8")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"MIXCLI_HOME": home, "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "COLUMNS": "118"}
        os.environ["MIXCLI_MEASURE"] = "off"  # no measurement of the CPU, which is noted once
        for name in ("OLLAMA_MODELS", "LMSTUDIO_MODELS", "HF_HOME"):
            os.environ[name] = f"{home}/none"
        os.chdir(home)
        for command, shown in commands(text):
            begin = time.monotonic()
            if shown is None:
                code, screen = chat(command)
                fault = "" if code == 0 and "Paris" in screen else f"exit code {code}\n{screen}"
            else:
                code, lines = output_of(command)
                same = list(map(normal, lines)) == list(map(normal, shown))
                is_fine = code == 0 and lines and (same or not strict)
                fault = "" if is_fine else f"exit code {code}\n" + "\n".join(lines)
            sys.stdout.write(
                f"{'ok  ' if not fault else 'FAIL'} {time.monotonic() - begin:5.1f} s  {command}\n{fault}{chr(10) if fault else ''}"
            )
            sys.stdout.flush()  # a person may be waiting for the next line
            wrong += bool(fault)
        output_of("mixcli stop --all")
    return wrong


if __name__ == "__main__":
    paths = [word for word in sys.argv[1:] if not word.startswith("-")]
    sys.exit(main(Path(paths[0]), strict="--answers-may-differ" not in sys.argv) > 0)
