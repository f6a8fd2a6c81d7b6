"""Files in messages: a fence that the file cannot end, in time that grows with the file and not with its square."""

import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.chat.files import MAX_FILE, Attachment, attach, write_new
from mixcli.errors import MixcliError, UsageError
from tests.support.waiting import ends_within


@pytest.mark.parametrize(("text", "n"), [("x", 3), ("a `b` c", 3), ("```\nx\n```", 4), ("`````", 6), ("", 3)])
def test_the_fence_is_longer_than_any_in_the_text(text: str, n: int) -> None:
    block = Attachment("x.md", text).block()
    assert block.splitlines()[1] == "`" * n + "md"
    assert block.splitlines()[-1] == "`" * n


def test_a_file_of_nothing_but_fences_is_quick() -> None:
    with ends_within():
        assert Attachment("x", "`" * MAX_FILE).block().endswith("`" * (MAX_FILE + 1))


def test_a_file_in_a_folder_that_is_not_there_has_a_next_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"folder .*/nodir does not exist; create it first"):
        write_new(tmp_path / "nodir" / "x", "text")


def test_a_full_disk_leaves_nothing_and_is_named(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from mixcli.chat.files import write_new\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try: write_new(Path(sys.argv[1]), 'x' * 20_000)\n"
        "except Exception as error: print(error.exit_code, error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.md")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(
        f"4 {tmp_path / 'out.md'}: larger than this file system or `ulimit -f` allows"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_home_of_a_user_that_does_not_exist_is_an_absent_folder() -> None:
    with pytest.raises(UsageError, match="no such file: ~no-such-user/x"):
        attach("~no-such-user/x")


@pytest.mark.parametrize("name", ["file", "folder", "/dev/null", "dangling", "a\0b", "x" * 300, "file/x"])
def test_what_is_there_is_never_written_over(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("years of work")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(MixcliError) as caught:
        write_new(tmp_path / name, "text")
    assert caught.value.exit_code in (1, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder", "dangling"}
    assert (tmp_path / "file").read_text() == "years of work"
    write_new(tmp_path / "new", "Größe")
    assert ((tmp_path / "new").read_text("utf-8"), (tmp_path / "new").stat().st_mode & 0o777) == (
        "Größe",
        0o600,
    )
