"""Ctrl-C at any moment, streams that are closed, full or of another kind: an exit code and at most a sentence."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from mixcli.cli import COMMANDS
from tests.conftest import _environment, mixcli_process
from tests.mixcli.test_waits import SOON

# an import that waits, in the place of a slow disk: Ctrl-C comes while Python imports
SLOW = """
import builtins, sys, time
original = builtins.__import__
def slow(name, *rest):
    if name == "mixcli.cli":
        print("importing", flush=True)
        time.sleep(300)
    return original(name, *rest)
builtins.__import__ = slow
from mixcli.__main__ import main
sys.argv = ["mixcli", {name!r}]
main()
"""


@pytest.mark.parametrize("name", [*COMMANDS][:3])
def test_ctrl_c_while_python_imports_is_silent(home: Path, name: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.replace("{name!r}", repr(name))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(home),
    )
    assert process.stdout
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_has_its_code(home: Path, number: int, code: int) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", SOON, "batch", "-", "--prompt", "x", "--endpoint", "http://127.0.0.1:9", "-m", "x"],
        stdin=reading, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=_environment(home),
    )  # fmt: skip
    os.close(reading)
    os.write(writing, b'{"text"')  # a line that does not end: it is waited for
    assert process.stderr
    while b"waiting for the first records" not in (line := process.stderr.readline()):
        assert line, "it did not wait"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    os.close(writing)
    assert process.returncode == code
    assert b"Traceback" not in err


@pytest.mark.parametrize("redirect", ["2>&-", "<&-", "</", "2>/dev/full", ">/dev/full 2>&1", "1</dev/null"])
@pytest.mark.parametrize("words", ["list --json", "run -m nothing", "lits", "--help"])
def test_streams_of_any_kind_end_in_a_known_code(home: Path, redirect: str, words: str) -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m mixcli {words} {redirect}'],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=_environment(home),
        check=False,
        timeout=60,
    )
    assert done.returncode in (0, 1, 2, 4), done
    assert b"Traceback" not in done.stderr + done.stdout
    assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "C", "LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
    ],
)
def test_output_is_utf_8_under_every_locale(home: Path, locale: Mapping[str, str]) -> None:
    done = mixcli_process(home, ["show", "naïve-日本語"], **locale)
    assert done.returncode == 2
    assert "'naïve-日本語'" in done.stderr


@pytest.mark.skipif(not shutil.which("localedef"), reason="no localedef, which makes a locale")
def test_words_are_utf_8_under_a_locale_of_another_encoding(home: Path, tmp_path: Path) -> None:
    """LANG=en_US means ISO-8859-1 on many machines, and the terminal speaks UTF-8 all the same."""
    made = tmp_path / "locales" / "en_US.ISO-8859-1"
    made.parent.mkdir()
    command = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(made)]
    subprocess.run(command, check=False, capture_output=True)
    if not made.exists():  # it complains of what is made all the same
        pytest.skip("no sources of locales")
    environment = {**_environment(home), "LOCPATH": str(made.parent), "LC_ALL": made.name}
    (tmp_path / "größe.txt").write_text("Größe")
    for words, named in (
        (["show", "naïve-日本語"], "'naïve-日本語'"),
        (["run", "-f", str(tmp_path / "größe.txt"), "-m", "nö", "?"], "'nö'"),
    ):
        command = [sys.executable, "-m", "mixcli", *words]
        done = subprocess.run(command, check=False, timeout=60, env=environment, capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL)  # fmt: skip
        assert (done.returncode, named in done.stderr) == (2, True), done.stderr


def test_a_path_keeps_its_bytes_in_a_pipe(home: Path, tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from mixcli.system.console import console; from mixcli.cli import _speak_utf8\n"
        "_speak_utf8(); console.path(Path(os.fsdecode(b'caf\\xe9.gguf'))); console.data({'a': '\\udce9\\ud800'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.startswith(b"caf\xe9.gguf\n")
    assert done.stdout.partition(b"\n")[2].decode("utf-8")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("Wörter".encode("utf-16"), "UTF-16"),
        ("some words".encode("utf-16-be"), "iconv -f UTF-16BE"),
        ("some words".encode("utf-32-le"), "iconv -f UTF-32LE"),
        (b"\x1f\x8b\x08\0", "gunzip"),
        (b"PK\x03\x04...", "ZIP archive"),
        (b"%PDF-1.7\n", "pdftotext"),
    ],
)
def test_data_that_is_not_text_is_named(home: Path, raw: bytes, words: str) -> None:
    done = mixcli_process(home, ["run", "-m", "demo"], raw)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


IN_SOURCE = """
import sys
from mixcli.system import signals
signals.listen()
try:
    exec("import os, signal; os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(10**6): pass")
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_ctrl_c_while_a_module_makes_its_classes_has_the_usual_code(home: Path, tmp_path: Path) -> None:
    """Dataclasses and named tuples run source text; `python -m` takes an interrupt there for one that nothing has caught."""
    (tmp_path / "interrupted.py").write_text(IN_SOURCE)
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, check=False, timeout=60, env=_environment(home), cwd=tmp_path)
    assert done.returncode == 130


def test_an_interrupt_behind_the_command_has_the_usual_code(home: Path) -> None:
    code = "import sys, mixcli.cli\nfrom mixcli.__main__ import main\n"
    code += "def interrupted():\n    raise KeyboardInterrupt\nmixcli.cli._settle = interrupted\nsys.argv = ['mixcli', '--help']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60, env=_environment(home), capture_output=True)  # fmt: skip
    assert (done.returncode, done.stderr) == (130, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("arguments", "expected"), [(("--version",), 0), (("run", "--no-such-option"), 2)])
def test_a_signal_while_python_tidies_up_keeps_the_exit_code(
    home: Path, number: int, arguments: tuple[str, ...], expected: int
) -> None:
    """Python gives its handlers up before it clears the modules; the system ended the process then."""
    code = "import os, sys\nfrom mixcli.__main__ import main\nclass Late:\n"
    code += f"    def __del__(self, kill=os.kill, pid=os.getpid()): kill(pid, {int(number)})\nsys.late = Late()\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60, env=_environment(home), capture_output=True)  # fmt: skip
    assert done.returncode == expected
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [("convert", "model"), ("quantize", "model", "Q4_K_M"), ("imatrix", "demo"), ("ps",)]
)
def test_an_interrupt_advises_to_rerun_what_resumes(home: Path, arguments: tuple[str, ...]) -> None:
    """The first look at the home or at a file is where Ctrl-C comes."""
    code = (
        "import os, pathlib, signal, sys\nfrom mixcli.__main__ import main\nfrom mixcli.system import paths\n"
    )
    code += "def press(*_, **__): os.kill(os.getpid(), signal.SIGINT)\n"
    code += "paths.models_dir = paths.runtime_dir = pathlib.Path.exists = pathlib.Path.stat = press\nmain()"
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=False, timeout=60, env=_environment(home), capture_output=True, text=True)  # fmt: skip
    advice = "" if arguments == ("ps",) else "; rerun the command to resume"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"interrupted{advice}\n")
