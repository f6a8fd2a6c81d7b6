"""Exit codes, streams and sentences of the command line, as processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.cli import COMMANDS
from mixcli.commands.asking import note_model_name
from mixcli.system.console import console
from mixcli.system.usage_hints import COMMANDS_ELSEWHERE, OPTIONS_ELSEWHERE, STEPS_ELSEWHERE
from tests.conftest import Runner


def test_no_arguments_show_the_help(mixcli: Runner) -> None:
    done = mixcli()
    assert (done.returncode, done.stderr) == (0, "")
    titles = [line for line in done.stdout.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options:", "Models:", "Quality:", "Ask:", "Serve:", "Machine:", "Environment:"]


def test_help_is_the_help_of_a_command(mixcli: Runner) -> None:
    for words in ((), ("pull",), ("profiles", "new")):
        assert mixcli("help", *words).stdout == mixcli(*words, "--help").stdout
    wrong = mixcli("help", "profiles", "nwe")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "no such command 'nwe'; did you mean `mixcli profiles new`?" in wrong.stderr
    assert "no such command 'pull'" in mixcli("help", "run", "pull").stderr


@pytest.mark.parametrize("line", ["mixcli nosuch -m ", "mixcli profiles nosuch ", "mixcli run -m "])
def test_a_line_that_cannot_be_completed_stays_as_it_is(mixcli: Runner, tmp_path: Path, line: str) -> None:
    (tmp_path / "file").touch()
    variables = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split())),
        "MIXCLI_HOME": str(tmp_path / "file"),
    }
    done = mixcli(**variables, _MIXCLI_COMPLETE="bash_complete")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


def test_a_typo_is_met_with_the_nearest_command(mixcli: Runner) -> None:
    done = mixcli("lits")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean `mixcli list`?" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["ls"], "no such command 'ls'; did you mean `mixcli list`?"),
        (["push", "x"], "no such command 'push'; `mixcli --help` lists the commands"),
        (["version"], "did you mean `mixcli --version`?"),
        (["sessions", "lsit"], "no such command 'lsit'; did you mean `mixcli sessions list`?"),
        (["run", "hi", "--temp", "1"], "no such option --temp; did you mean --temperature? (see mixcli run --help)"),
        (["run", "hi", "-n", "9"], "no such option -n; did you mean --max-tokens? (see"),
        (["run", "hi", "-ngl", "9"], "no such option -ngl; mixcli places layers and experts itself"),
        (["run", "--prompt", "hi"], "no such option --prompt; pass the prompt without an option"),
        (["run", "hi", "--max_tokens", "9"], "did you mean --max-tokens?"),
        (["run", "demo", "hi"], "unexpected argument 'hi'; pass the model with -m, and the prompt in quotes (see mixcli run --help)"),
        (["list", ""], "unexpected empty argument; check that the shell variable is set (see mixcli list --help)"),
        (["run", "--top-p"], "--top-p needs a value (see mixcli run --help)"),
        (["run", "--top-p", "7", "hi"], "invalid value for --top-p: '7'; use 0 to 1 (see mixcli run --help)"),
        (["run", "--on-overflow", "erorr", "hi"], "'map-reduce'; did you mean error? (see"),
        (["compare"], "missing argument MODEL[:QUANT,QUANT…]... (see mixcli compare --help)"),
    ],
)  # fmt: skip
def test_an_invalid_command_line_is_one_sentence_for_those_who_know_other_programs(
    mixcli: Runner, args: list[str], words: str
) -> None:
    done = mixcli(*args)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


def test_the_names_of_other_programs_are_no_names_of_ours() -> None:
    assert COMMANDS.keys().isdisjoint(COMMANDS_ELSEWHERE)
    assert {name.split()[0] for name in COMMANDS_ELSEWHERE.values()} <= {*COMMANDS, "--version"}
    assert OPTIONS_ELSEWHERE.keys().isdisjoint(STEPS_ELSEWHERE)


def test_a_models_name_alone_is_answered_with_the_way_to_chat(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `ollama run NAME` begins a chat."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr("mixcli.store.store.names", lambda: {"demo", "demo:Q4_K_M"})
    monkeypatch.setattr(console, "is_terminal", lambda stream: stream is not None)
    note_model_name("demo", None)
    assert (
        capsys.readouterr().err
        == "'demo' is sent as the prompt; to chat with that model: mixcli chat -m demo\n"
    )
    for text, model in (("demo", "other"), ("Hello", None), (None, None)):
        note_model_name(text, model)
    assert capsys.readouterr().err == ""


def test_help_fits_a_narrow_terminal(home: Path) -> None:
    narrow = {**os.environ, "COLUMNS": "40"}
    for command in ((), ("run",), ("sessions",)):
        line = command_line(*command, "--help")
        done = subprocess.run(line, env=narrow, capture_output=True, text=True, check=True)
        lines = [
            text for text in done.stdout.splitlines() if not text.startswith("  -")
        ]  # a long option stays whole
        assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("group", ["profiles", "sessions"])
def test_no_line_of_a_groups_help_is_cut_off(mixcli: Runner, group: str) -> None:
    assert "..." not in mixcli(group, "--help").stdout.partition("Commands:")[2]


def test_lists_without_a_table_have_json_too(mixcli: Runner) -> None:
    assert json.loads(mixcli("sessions", "--json").stdout) == []
    assert "pass --json after list" in mixcli("sessions", "--json", "list").stderr
    assert json.loads(mixcli("default", "--json").stdout) == {"model": None}


@pytest.mark.parametrize(
    ("args", "stdin", "words"),
    [
        (["run", "-m", "dmeo", "hi"], None, "did you mean demo?"),
        (["run", "-m", "demo", "hi"], None, "run `mixcli pull demo`"),
        (["run", "hi"], None, "no model is installed"),
        (["run", "-m", "./nowhere.gguf", "hi"], None, "no such file"),
        (["run", "-m", "demo"], b"", "no prompt and no piped text"),
        (["run", "-m", "demo", "hi", "--keep-alive", "soon"], None, "invalid time"),
        (["run", "--top-p", "7", "hi"], None, "--top-p"),
        (["pull", "nothing-like-it"], None, "not found"),
        (["pull", "demo:Q9_X"], None, "use Q4_K_M, Q8_0, BF16"),
        (["pull", "some.gguf"], None, "is a GGUF already"),
        (["show", "dmeo"], None, "did you mean demo?"),
        (["stop"], None, "no model is loaded"),
        (["stop", "demo"], None, "demo is not loaded"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_and_exit_2(
    mixcli: Runner, args: list[str], stdin: bytes | None, words: str
) -> None:
    done = mixcli(*args, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_empty_store_is_an_empty_list(mixcli: Runner) -> None:
    assert mixcli("list", "--json").stdout.strip() == "[]"
    plain = mixcli("list")
    assert (plain.returncode, plain.stdout) == (0, "")
    assert "mixcli pull demo" in plain.stderr
    assert mixcli("list", "-q").stderr == ""


def test_everything_is_private_to_the_user(mixcli: Runner, home: Path) -> None:
    mixcli("list")
    mixcli("ps")
    folders = [path for path in home.rglob("*") if path.is_dir()]
    assert len(folders) >= 3
    assert {path.stat().st_mode & 0o077 for path in folders} == {0}


def command_line(*args: str) -> list[str]:
    return [sys.executable, "-m", "mixcli", *args]


def test_a_closed_stdout_is_one_sentence(home: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command_line("list", "--json")],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_device_is_exit_4(home: Path) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = subprocess.run(
            command_line("list", "--json"), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 4
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_exit_141(home: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command_line("list", "--json"), stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_folder_that_cannot_be_made_is_named(mixcli: Runner, home: Path) -> None:
    home.mkdir()
    (home / "data").write_text("a file where a folder must be")
    done = mixcli("list")
    assert done.returncode == 1
    assert done.stderr.startswith(f"mixcli: {home / 'data'}: a file has the name of a needed folder")
    assert "MIXCLI_HOME" in done.stderr


def test_to_stop_all_of_none_is_done(mixcli: Runner) -> None:
    from mixcli.commands.stop import _named
    from mixcli.host.protocol.health import HostHealth

    assert mixcli("stop", "--all").returncode == 0
    copies = [
        HostHealth("ready", pid, model=model) for pid, model in enumerate(("a", "a", "b", None), start=1)
    ]
    assert _named(copies) == ["a (pid 1)", "a (pid 2)", "b", "4"]
