"""What is measured for a tailored file is kept and reused: in a folder of bounded size, and whatever else lies in it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import Importance
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from mixcli.system.console import console
from mixcli.tailor.measuring import KEPT, PassResult, ReadTexts, measured_problem, read_texts
from mixcli.tailor.reader import TextReader
from mixcli.tailor.subject import TailorSubject, subject_named
from profiles.request import PlanRequest
from quantize.ggml_types import GGMLQuantizationType as T
from quantize.tailor.choice import TailoringProblem
from quantize.tailor.statistics import read_statistics
from tests.support.tiny_models import tiny_model

TEXT = TextPiece(
    "notes.txt", "prose", "The tide came in twice a day, and the bell at the end of the pier rang. " * 40
)
TYPES = (T.Q4_K, T.Q8_0)


@pytest.fixture
def subject(home: Path, tmp_path: Path) -> TailorSubject:
    return subject_named(str(tiny_model(tmp_path / "tiny.gguf", n_expert=2, file_type="BF16")), None)


def passed(subject: TailorSubject, given: Path | None = None) -> PassResult:
    reader = TextReader(subject, Path("unused.gguf"))
    return read_texts(subject, reader, ReadTexts((TEXT,), "notes.txt", 1), given, LoadOptions(PlanRequest()))


def measured(subject: TailorSubject, found: PassResult) -> TailoringProblem:
    with console.progress("measuring") as bar:
        return measured_problem(subject, found, TYPES, bar)


@pytest.mark.slow
def test_the_cache_is_trimmed_around_what_this_run_needs(subject: TailorSubject, home: Path) -> None:
    folder = home / "cache/tailor"
    found = passed(subject)
    recipe = folder / "org-tiny--TAILORED.recipe.json"  # as mixcli pull --fit leaves it
    recipe.write_text("{}")
    other = folder / ("0" * 32) / "large.errors"
    other.parent.mkdir()
    with other.open("wb") as file:
        file.truncate(KEPT)
    first = measured(subject, found)
    assert found.imatrix_path.is_file(), "the file is quantized with it in the end"
    assert (recipe.is_file(), other.exists()) == (True, False)
    (errors,) = folder.rglob("*.errors")
    state = errors.stat()
    again = measured(subject, found)
    assert errors.stat().st_size == state.st_size
    assert all((again.losses[name] == losses).all() for name, losses in first.losses.items())


@pytest.mark.slow
def test_the_older_format_of_a_matrix_may_have_any_name(
    subject: TailorSubject, home: Path, tmp_path: Path
) -> None:
    path = passed(subject).imatrix_path
    known = read_statistics(path)
    entries = {
        name: Importance(sums.astype(np.float32), known.counts[name].astype(np.int64))
        for name, sums in known.sums.items()
        if not name.startswith("sensitivity.")
    }
    older = tmp_path / "older.dat"
    write_imatrix(older, entries, 512, "notes.txt")
    shutil.copy(older, tmp_path / "older.imatrix")
    found = passed(subject, tmp_path / "older.imatrix")
    assert found.imatrix.name == "older.imatrix"
    assert found.statistics.n_tokens > 0, "what it lacks was computed"
