"""A home that cannot be made or written to: what needs none works, the rest is one sentence with the variable to set."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mixcli.chat.conversation import Conversation
from mixcli.chat.sessions import DONE, Sessions
from mixcli.request.settings import ChatSettings
from tests.conftest import _environment
from tests.support import small_gguf
from tests.support.forked import Forked, commands, forked

NOWHERE = "/proc/nowhere"  # nobody, not even root, can make it
# a table and no sentence; waits for a client
EXCLUDED = {("doctor",), ("worker",)}
# what a command line needs to get as far as the home
GIVEN: dict[tuple[str, ...], tuple[str, ...]] = {
    ("pull",): ("demo",),
    ("show",): ("demo",),
    ("rm",): ("demo", "-y"),
    ("default",): ("demo",),
    ("import",): ("m.F16.gguf",),
    ("convert",): ("m.F16.gguf", "-t", "COPY", "--dry-run"),
    ("quantize",): ("m.F16.gguf", "Q8_0", "--dry-run"),
    ("plan",): ("mixtral", "--profile", "rtx-4090"),
    ("profiles", "show"): ("rtx-4090",),
    ("profiles", "new"): ("mine", "--extends", "cpu"),
    ("run",): ("hi",),
    ("batch",): ("in.txt", "--prompt", "x"),
    ("stop",): ("--all",),
    ("sessions", "search"): ("words",),
    ("sessions", "show"): ("one",),
    ("sessions", "export"): ("one", "out.md"),
    ("sessions", "rename"): ("one", "two"),
    ("sessions", "rm"): ("one", "-y"),
}
WORKS = {"help", "show", "list", "ps", "top", "search", "convert", "quantize", "plan", "verify", "sessions", "sessions list", "sessions search", "profiles list", "profiles show", "profiles detect", "chat", "stop"}  # fmt: skip
RUN = [
    (words, one) for words, one in commands() if words not in EXCLUDED and not isinstance(one, click.Group)
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forked]:
    folder = tmp_path_factory.mktemp("homes")
    small_gguf.write(folder / "m.F16.gguf", small_gguf.gguf())
    (folder / "in.txt").write_text("one\n")
    (folder / "file").write_text("")
    with forked(folder / "home", _environment(folder / "home")) as process:
        yield process


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no file system in which nothing can be made")
@pytest.mark.parametrize("words", [words for words, _ in RUN], ids=" ".join)
def test_a_home_that_cannot_be_made(program: Forked, words: tuple[str, ...]) -> None:
    done = program.run(*words, *GIVEN.get(words, ()), MIXCLI_HOME=NOWHERE, limit=20)
    said = done.sentence
    assert done.code in ({0} if " ".join(words) in WORKS else {1, 2}), said
    assert not any(word in said for word in ("Errno", "Traceback", "None")), said
    assert len(said.splitlines()) <= 1 or done.code == 0
    if done.code == 1:
        assert f"mixcli: {NOWHERE}" in said and "set MIXCLI_HOME to a folder that you can write" in said


@pytest.mark.parametrize("words", [words for words, _ in RUN], ids=" ".join)
def test_a_file_in_the_place_of_a_home(program: Forked, words: tuple[str, ...]) -> None:
    done = program.run(*words, *GIVEN.get(words, ()), MIXCLI_HOME="file", limit=20)
    said = done.sentence
    assert done.code in {0, 1, 2}, said
    assert not any(word in said for word in ("Errno", "Traceback", "None")), said
    if done.code == 1:
        assert said.count("\n") == 1 and "set MIXCLI_HOME to a folder that you can write" in said


@pytest.fixture
def read_only(home: Path) -> list[str]:
    """A home with one conversation, and the words that run a command while it cannot be written to."""
    conversation = Conversation(Sessions(), "demo:Q4_K_M", "", ChatSettings())
    conversation.ask("Why?")
    conversation.append_delta("Because")
    conversation.end(DONE, ())
    conversation.store.close()
    mount = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", mount, os.fspath(home)]
    if (
        not shutil.which("unshare")
        or subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not mount anything")
    return words


def test_conversations_on_a_read_only_disk_can_be_read(home: Path, read_only: list[str]) -> None:
    def run(*args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*read_only, sys.executable, "-m", "mixcli", *args],
            capture_output=True, text=True, check=False, env=_environment(home), stdin=subprocess.DEVNULL,
        )  # fmt: skip

    listed = run("sessions", "list", "--json")
    (one,) = json.loads(listed.stdout)
    assert (one["messages"], listed.stderr) == (2, "")
    (hit,) = json.loads(run("sessions", "search", "Because", "--json").stdout)
    assert hit["role"] == "assistant"
    assert "Because" in run("sessions", "show", one["name"]).stdout
    refused = run("sessions", "rm", one["name"], "-y")
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "the file system is read-only; set MIXCLI_HOME to" in refused.stderr
    assert len(Sessions().all()) == 1
