"""Shell completions: the files are what click makes, and complete in real shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest
from click.shell_completion import get_completion_class

from mixcli.cli import cli
from mixcli.commands.completion import VARIABLE
from tests.conftest import ROOT

FILES = {"bash": "mixcli.bash", "zsh": "_mixcli", "fish": "mixcli.fish"}
FOLDER = ROOT / "deploy/completions"
BIN = Path(sys.executable).parent


@pytest.mark.parametrize("shell", FILES)
def test_files_are_what_click_makes(shell: str) -> None:
    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(cli, {}, "mixcli", VARIABLE).source()
    assert (FOLDER / FILES[shell]).read_text("utf-8").rstrip() == made.rstrip(), (
        f"run `mixcli run --print-completion {shell}`"
    )


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_tab_completes_in_bash(home: Path) -> None:
    """In an interactive bash: the only command that begins so, and then its only option that does."""
    env = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PS1": "$ ",
        "INPUTRC": "/dev/null",
        "TERM": "dumb",
    }
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=env, encoding="utf-8", timeout=60)
    shell.sendline(f"source {FOLDER}/mixcli.bash")
    shell.send("mixcli doc\t")
    shell.expect_exact("mixcli doctor ")
    shell.send("--js\t")
    shell.expect_exact("--json ")
    shell.close(force=True)


SCRIPTS = {
    # what zsh's own functions would show is printed: the last word is the name of the array
    "zsh": "fpath=({folder} $fpath); autoload -U _mixcli\n"
    "compadd() {{ local name=$@[-1]; print -l -- ${{(P)name}} }}; _describe() {{ print -l -- ${{(P)3}} }}\n"
    "words=(mixcli doc); CURRENT=2; _mixcli",
    "fish": "source {folder}/mixcli.fish; complete -C 'mixcli doc'",
}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_zsh_and_fish_complete(shell: str, home: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(home.parent)}
    done = subprocess.run(
        [shell, "-c", SCRIPTS[shell].format(folder=FOLDER)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.startswith("doctor"), done.stderr
