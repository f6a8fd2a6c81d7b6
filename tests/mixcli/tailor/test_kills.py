"""mixcli tailor, killed at ten moments from the first pass to the last byte: the same command then makes the same file."""

import signal
from pathlib import Path

import pytest

from tests.conftest import mixcli_process
from tests.support.moments import VARIABLE
from tests.support.tiny_models import tiny_model

SIZE = 1_300_000
TEXT = "The tide came in twice a day, and the bell at the end of the pier rang without being touched. " * 24
MOMENTS = (
    "reading:1",
    "reading:4",
    "measuring:1",
    "measuring:4",
    "measuring:9",
    "planning:1",
    "writing:1",
    "writing:4",
    "writing:8",
    "writing:12",
)


def made(folder: Path, model: Path, *killed_at: str) -> dict[str, bytes]:
    """Return the files that the command leaves after it was killed at each of these moments, one run after the other."""
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    target = folder / "fitted.gguf"
    call = ("tailor", str(model), "--size", str(SIZE), "--text", str(folder / "text.txt"), "--no-verify")
    home = folder / "home"
    for moment in killed_at:
        done = mixcli_process(home, (*call, "-o", str(target)), **{VARIABLE: moment})
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
    done = mixcli_process(home, (*call, "-o", str(target)))
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("fitted")}


@pytest.mark.slow
def test_a_run_that_is_killed_at_ten_moments_makes_the_same_file(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "tiny.gguf", file_type="BF16")
    whole = made(tmp_path / "whole", model)
    assert sorted(whole) == ["fitted.gguf", "fitted.imatrix.gguf", "fitted.recipe.json"]
    assert made(tmp_path / "again", model) == whole
    assert made(tmp_path / "killed", model, *MOMENTS) == whole
