"""Write under every command of README.md and docs/*.md what it really prints.

A block that begins with ```console has commands behind "$ " and, under each, what a terminal of 118 columns shows. They run in the order
of the page, in a copy of docs/examples and in a scratch MIXCLI_HOME that has the demo model. A page whose commands need a server names it
in a comment: `<!-- server: COMMAND -->`. Run by `make outputs`; tests/test_docs.py repeats those whose output no machine changes.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from docs.terminal import Terminal

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.M | re.S)
SERVER = re.compile(r"<!-- server: (.*?) -->")
# what these print depends on nothing but mixcli
FIXED = re.compile(r"mixcli (plan mixtral\S* .*--profile|profiles list)")
COLUMNS, WIDTH, ROWS = 118, 400, 200  # tables have so many columns; longer lines stay whole


def commands_of(block: str) -> list[str]:
    """Return the commands of a console block, each with its continued lines."""
    return [match[1] for match in re.finditer(r"^\$ ((?:.*\\\n)*.*)$", block, re.M)]


def output_of(command: str, home: Path, folder: Path | None = None) -> str:
    """Return what a terminal shows when a command has run."""
    places = {"MIXCLI_HOME": str(home), "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    places |= {"OLLAMA_MODELS": str(home / "ollama"), "LMSTUDIO_MODELS": str(home / "lmstudio")}
    shown = {"NO_COLOR": "1", "MIXCLI_MEASURE": "off", "COLUMNS": str(COLUMNS)}
    return Terminal(ROWS, WIDTH, command, folder, **places, **shown).output()


def rewritten(page: str, run: Callable[[str], str]) -> str:
    """Return a page with the output of every command as `run` returns it."""

    def block(match: re.Match[str]) -> str:
        parts = [f"$ {command}\n{run(command)}".rstrip() for command in commands_of(match[1])]
        return "```console\n" + "\n".join(parts) + "\n```"

    return BLOCK.sub(block, page)


def main(names: list[str]) -> None:
    """Rewrite the pages, or those that are named."""
    with tempfile.TemporaryDirectory() as scratch:
        home, folder = Path(scratch) / "home", Path(scratch) / "examples"
        shutil.copytree(ROOT / "docs" / "examples", folder)
        if demo := os.environ.get("DEMO_HOME"):  # a home that has the demo model already
            shutil.copytree(Path(demo) / "data" / "models", home / "data" / "models", copy_function=os.link)
        elif names and "README.md" not in names:  # which begins with pulling it
            output_of("mixcli pull -q demo", home)
        for path in PAGES:
            page = path.read_text("utf-8")
            if (names and path.name not in names) or not BLOCK.search(page):
                continue
            sys.stderr.write(f"{path.name}\n")
            servers = [_started(command, home, folder) for command in SERVER.findall(page)]
            path.write_text(rewritten(page, lambda command: output_of(command, home, folder)), "utf-8")
            for server in servers:
                server.terminate()
                server.wait()
        output_of("mixcli stop --all", home)


def _started(command: str, home: Path, folder: Path) -> "subprocess.Popen[str]":
    """Start a server and wait until it says where it is."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "MIXCLI_HOME": str(home), "MIXCLI_MEASURE": "off", "PATH": path}
    server = subprocess.Popen(command.split(), cwd=folder, env=env, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    while "http://" not in server.stderr.readline():
        if server.poll() is not None:
            sys.exit(f"{command} ended with {server.returncode}")
        time.sleep(0.1)
    return server


if __name__ == "__main__":
    main(sys.argv[1:])
