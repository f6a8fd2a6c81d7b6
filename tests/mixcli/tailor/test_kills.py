"""mixcli tailor, killed at moments from the first byte of what it makes to the last: the same command then makes the same file."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import mixcli_process
from tests.support.checkpoints import write_checkpoint
from tests.support.moments import VARIABLE
from tests.support.tiny_models import tiny_model

SIZE, SIZE_OF_CHECKPOINT = 1_300_000, 11_000_000
TEXT = "The tide came in twice a day, and the bell at the end of the pier rang without being touched. " * 24
MOMENTS = (
    "computing:1",
    "computing:4",
    "measuring:1",
    "measuring:4",
    "measuring:9",
    "planning:1",
    "writing:1",
    "writing:4",
    "writing:8",
    "writing:12",
)


VERIFYING = tuple(f"writing and measuring:{n}" for n in (1, 20, 40))
CHECKPOINT = ("converting:1", "converting:5", "computing:1", "writing:5")


def made(folder: Path, model: Path, size: int, options: Sequence[str], *killed_at: str) -> dict[str, bytes]:
    """Return the files that the command leaves after it was killed at each of these moments, one run after the other."""
    folder.mkdir()
    (folder / "text.txt").write_text(TEXT)
    target = folder / "fitted.gguf"
    call = ("tailor", str(model), "--size", str(size), "--text", str(folder / "text.txt"), *options)
    home = folder / "home"
    for moment in killed_at:
        done = mixcli_process(home, (*call, "-o", str(target)), **{VARIABLE: moment})
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
    done = mixcli_process(home, (*call, "-o", str(target)))
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("fitted")}


@pytest.mark.slow
@pytest.mark.parametrize("moments", [MOMENTS, VERIFYING], ids=["ten moments", "moments of its verification"])
def test_a_run_that_is_killed_makes_the_same_file(tmp_path: Path, moments: Sequence[str]) -> None:
    options = () if moments is VERIFYING else ("--no-verify",)
    model = tiny_model(tmp_path / "tiny.gguf", file_type="BF16")
    whole = made(tmp_path / "whole", model, SIZE, options)
    assert sorted(whole) == ["fitted.gguf", "fitted.imatrix.gguf", "fitted.recipe.json"]
    assert made(tmp_path / "killed", model, SIZE, options, *moments) == whole


@pytest.mark.slow
def test_a_run_from_a_checkpoint_that_is_killed_leaves_nothing_of_the_file_that_reads(tmp_path: Path) -> None:
    model = write_checkpoint(tmp_path / "hf", n_layer=1, n_ff=256)
    whole = made(tmp_path / "whole", model, SIZE_OF_CHECKPOINT, ("--no-verify",))
    assert sorted(whole) == ["fitted.gguf", "fitted.imatrix.gguf", "fitted.recipe.json"]
    assert made(tmp_path / "killed", model, SIZE_OF_CHECKPOINT, ("--no-verify",), *CHECKPOINT) == whole
