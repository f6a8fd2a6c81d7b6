"""What the operating system refuses is one sentence with the right exit code, with and without a file's name."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from mixcli import cli
from mixcli.host.protocol.errors import error_body
from mixcli.system.os_errors import explain
from tests.conftest import Runner

OF_NO_FILE = {
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
}  # limits of a process: which file it was does not matter


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        (errno.ENOSPC, 4, "no space left"),
        (errno.EDQUOT, 4, "quota"),
        (errno.EFBIG, 4, "ulimit -f"),
        (errno.ENOMEM, 4, "not enough memory"),
        (errno.EROFS, 1, "read-only"),
        (errno.EACCES, 1, "permission denied"),
        (errno.EPERM, 1, "not permitted"),
        (errno.EIO, 5, "input/output error"),
        (errno.ESTALE, 1, "stale file handle"),
        (errno.EMFILE, 1, "ulimit -n"),
        (errno.ENFILE, 1, "too many open files"),
        (errno.EAGAIN, 1, "ulimit -u"),
        (errno.ENAMETOOLONG, 2, "too long"),
        (errno.ELOOP, 2, "link"),
        (errno.ETXTBSY, 1, "a running program"),
        (errno.ENOLCK, 1, "No locks available"),
        (errno.ENOSYS, 1, "Function not implemented"),
        (errno.EXDEV, 1, "cross-device"),
        (errno.ENETUNREACH, 6, "network is unreachable"),
        (9999, 1, "Unknown error 9999"),
    ],
)
def test_every_refusal_is_a_sentence(
    capsys: pytest.CaptureFixture[str], code: int, exit_code: int, words: str, named: bool
) -> None:
    error = OSError(code, os.strerror(code), *(["/some/file"] if named else []))
    forget, cli._forget_stdout = cli._forget_stdout, lambda: None  # pytest's own stdout stays
    try:
        assert cli._exit_code_of(error) == exit_code
    finally:
        cli._forget_stdout = forget
    said = capsys.readouterr().err
    assert words.lower() in said.lower()
    assert ("/some/file" in said) is (named and code not in OF_NO_FILE)
    assert (said.count("\n"), "{" in said, "None" in said) == (1, False, False)


@pytest.mark.parametrize("error", [OSError(), OSError("a library's words"), OSError(errno.EIO, "x", 7)])
def test_a_refusal_that_says_little(error: OSError) -> None:
    assert str(explain(error))
    assert explain(error).exit_code in {1, 5}


def test_no_room_for_a_thread_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    error = RuntimeError("can't start new thread")
    words = "no further process or thread can be started; close other programs, or raise the limits (`ulimit -u`, `ulimit -v`)"
    assert cli._exit_code_of(error) == 1
    assert capsys.readouterr().err == f"mixcli: {words}\n"
    assert error_body(error)[1].message == words
    assert "too many open files" in error_body(OSError(errno.EMFILE, "Too many open files"))[1].message
    with pytest.raises(RuntimeError, match="a bug"):
        cli._exit_code_of(RuntimeError("a bug"))
    assert "a bug" in error_body(RuntimeError("a bug"))[1].message


def test_a_write_that_would_wait_is_not_blamed_on_processes() -> None:
    said = str(explain(BlockingIOError(errno.EAGAIN, "write could not complete without blocking")))
    assert said == "write could not complete without blocking"


def test_a_long_name_is_cut() -> None:
    said = str(explain(OSError(errno.ENAMETOOLONG, "too long", "x" * 10_000)))
    assert len(said) < 400


def test_what_is_to_be_set_is_the_variable_of_that_folder(home: Path) -> None:
    for path, variable in (
        (home / "data/models/x", "MIXCLI_HOME"),
        (home / "huggingface/hub/models--a--b/blobs/x", "HF_HOME"),
    ):
        assert f"set {variable} to" in str(explain(PermissionError(errno.EACCES, "no", str(path))))
    assert "use another path" in str(explain(PermissionError(errno.EACCES, "no", "/etc/x")))


@pytest.mark.parametrize(
    ("path", "is_ours"),
    [("", True), ("mixcli-header-x/h.gguf", True), ("quantize-x/h", True), ("tmpabc", True), ("out.gguf.part", False), ("work/m.gguf", False)],
)  # fmt: skip
def test_a_file_of_a_person_in_the_temporary_folder_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, is_ours: bool
) -> None:
    """TMPDIR would not move the output that they named."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = str(explain(OSError(errno.ENOSPC, "full", str(tmp_path / path))))
    assert ("set TMPDIR to" in said, "use another path" in said) == (is_ours, not is_ours)


@pytest.mark.parametrize(
    "model", ["x" * 10_000 + ".gguf", "./" + "y" * 300, "a/" * 3000, "~nobody-at-all/x.gguf"]
)
def test_a_name_that_no_file_can_have(mixcli: Runner, model: str) -> None:
    done = mixcli("show", model)
    assert (done.returncode, done.stderr.count("\n"), "Traceback" in done.stderr) == (2, 1, False), (
        done.stderr
    )
    assert len(done.stderr) < 1000


def test_a_home_that_cannot_be_made_is_named_with_its_variable(mixcli: Runner, home: Path) -> None:
    file = home.parent / "file"
    file.write_text("")
    done = mixcli("profiles", "new", "x", "--extends", "cpu", MIXCLI_HOME=str(file))
    assert (done.returncode in {1, 2}, done.stderr.count("\n"), "Traceback" in done.stderr) == (
        True,
        1,
        False,
    )
    error = FileNotFoundError(errno.ENOENT, "no", str(home / "data/models/x.lock"))
    home.write_text("a file")
    assert "set MIXCLI_HOME to" in str(explain(error))
    home.unlink()


def test_a_current_folder_that_was_removed_is_named(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for error in (OSError(errno.ENOENT, "No such file or directory"), OSError(errno.ENOENT, "no", "x.gguf")):
        assert str(explain(error)) == "the current folder no longer exists; change to another one"
        assert explain(error).exit_code == 2
    assert "no such file" in str(explain(OSError(errno.ENOENT, "no", "/x.gguf")))
