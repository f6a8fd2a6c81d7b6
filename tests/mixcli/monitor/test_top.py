"""`mixcli top` on a terminal, in a pipe and as JSON."""

import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixcli.monitor.picture import NOTHING
from tests.conftest import Runner
from tests.support.terminal import Terminal
from tests.support.told_host import OLD, told_host

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOW_CURSOR, HIDE_CURSOR = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture
def old_host(home: Path) -> Iterator[Path]:
    home.mkdir(parents=True)
    with told_host(OLD):
        yield home


def shown(terminal: Terminal) -> str:
    return "\n".join(terminal.display)


def test_the_picture_is_on_a_screen_of_its_own_until_q(old_host: Path) -> None:
    with Terminal(old_host, "top", "--interval", "0.1") as terminal:
        terminal.wait_for(lambda: "old:Q4_K_M" in shown(terminal))
        assert "q quits" in shown(terminal)
        assert terminal.raw.count(ENTER) == 1
        terminal.type("x")  # any other key does nothing
        terminal.type("q")
        assert terminal.wait_for_end() == 0
    assert terminal.raw.count(LEAVE) == 1
    assert terminal.raw.rindex(SHOW_CURSOR) > terminal.raw.index(ENTER)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_the_terminal_as_it_was(old_host: Path, number: int, code: int) -> None:
    with Terminal(old_host, "top") as terminal:
        terminal.wait_for(lambda: "old:Q4_K_M" in shown(terminal))
        if number == signal.SIGINT:
            terminal.type("\x03")
        else:
            os.kill(terminal.process.pid, number)
        assert terminal.wait_for_end() == code
    assert LEAVE in terminal.raw
    assert "Traceback" not in terminal.raw


def test_ctrl_z_shows_the_shell_and_fg_the_picture(old_host: Path) -> None:
    with Terminal(old_host, shell="exec bash --norc --noprofile -i") as shell:
        shell.type(f"{shlex.join([sys.executable, '-m', 'mixcli', 'top', '--interval', '3600'])}\r")
        shell.wait_for(lambda: "q quits" in shown(shell))
        shell.type("\x1a")
        shell.wait_for("Stopped")
        left = shell.raw.rpartition("Stopped")[0].rpartition(ENTER)[2]
        assert (left.count(LEAVE), left.rfind(HIDE_CURSOR) < left.rfind(SHOW_CURSOR)) == (1, True)
        shell.type("stty -a | tr ' ' '\\n' | grep -x -e icanon -e echo | wc -l\r")
        shell.wait_for("2\n")
        shell.type("fg\r")
        shell.wait_for(lambda: "q quits" in shell.raw.rpartition("Stopped")[2].rpartition(ENTER)[2])
        shell.type("q")
        shell.wait_for(lambda: shell.raw.count(LEAVE) == 2)


def test_it_follows_the_size_of_the_terminal(old_host: Path) -> None:
    with Terminal(old_host, "top", "--interval", "3600", columns=100) as terminal:
        terminal.wait_for(lambda: "prefill -   decode -" in shown(terminal))
        terminal.resize(12, 40)
        terminal.wait_for(lambda: "unloads in 30 s" in terminal.display)
        terminal.wait_for(lambda: "q quits" in shown(terminal))
        terminal.resize(6, 40)
        terminal.wait_for(lambda: "lines more" in shown(terminal))
        terminal.type("q")
        assert terminal.wait_for_end() == 0


def test_a_model_that_comes_later_is_seen(home: Path) -> None:
    home.mkdir(parents=True)
    with Terminal(home, "top", "--interval", "0.1") as terminal:
        terminal.wait_for(lambda: NOTHING in " ".join(shown(terminal).split()))
        with told_host(OLD):
            terminal.wait_for(lambda: "old:Q4_K_M" in shown(terminal))
        terminal.type("q")
        assert terminal.wait_for_end() == 0


def test_a_dumb_terminal_gets_one_picture_without_escapes(old_host: Path) -> None:
    with Terminal(old_host, "top", TERM="dumb") as terminal:
        assert terminal.wait_for_end() == 0
    assert "old:Q4_K_M" in terminal.text
    assert "\x1b" not in terminal.raw


def test_a_pipe_gets_one_picture(mixcli: Runner, old_host: Path) -> None:
    done = mixcli("top", COLUMNS="40", LANG="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert "old:Q4_K_M" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 40
    assert "\x1b" not in done.stdout


def test_nothing_running_is_one_note(mixcli: Runner, home: Path) -> None:
    done = mixcli("top")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", f"{NOTHING}\n")
    assert json.loads(mixcli("top", "--json").stdout) == {"models": [], "servers": []}


def test_an_interval_of_one_snapshot_is_refused(mixcli: Runner) -> None:
    done = mixcli("top", "--json", "--interval", "2")
    assert (done.returncode, "--interval has no effect with --json" in done.stderr) == (2, True)
    done = mixcli("top", "--interval", "0")
    assert (done.returncode, "from 0.1 to 3600" in done.stderr) == (2, True)
