"""stdout is for what the user asked for, whatever libraries print."""

import os
import pty
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


def test_a_note_behind_an_answer_that_broke_off_has_a_line_of_its_own() -> None:
    code = "from mixcli.system.console import console as c\n"
    code += "for text in ('part', 'whole\\n'):\n c.write(text); c.begin_line(); c.note('interrupted')"
    master, slave = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", code], stdout=slave, stderr=slave, check=True, env=environment)
    os.close(slave)
    assert os.read(master, 1000).splitlines() == [b"part", b"interrupted", b"whole", b"interrupted"]
    os.close(master)
    piped = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert piped.stdout == b"partwhole\n", "what is not a terminal gets the answer as it is"
