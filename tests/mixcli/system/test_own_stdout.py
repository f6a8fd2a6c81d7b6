"""stdout is for what the user asked for, whatever libraries print."""

import subprocess
import sys

CODE = """
import os, subprocess, sys
from mixcli.system.console import console
from mixcli.system.own_stdout import own_stdout
print("before", flush=True)
with own_stdout():
    print("a library", flush=True)
    os.write(1, b"its C++\\n")
    subprocess.run(["echo", "its process"], check=True)
    console.line("an answer")
print("after", flush=True)
"""


def test_what_others_print_goes_to_stderr_and_answers_to_stdout() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["before", "an answer", "after"]
    assert done.stderr.splitlines() == ["a library", "its C++", "its process"]


def test_a_closed_stdout_is_left_alone() -> None:
    code = "from mixcli.system.own_stdout import own_stdout\nwith own_stdout(): pass"
    command = ["sh", "-c", f"exec '{sys.executable}' -c '{code}' >&-"]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0, done.stderr
