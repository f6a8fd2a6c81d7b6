"""mixcli tailor, a whole round with tiny models: the file, its recipe, the table, and what is refused."""

import json
import os
import re
from pathlib import Path

import pytest

from quantize.tailor.recipe_file import read_recipe
from tests.conftest import Runner
from tests.support.bindings import SAME, distance_from_bindings
from tests.support.tiny_models import tiny_model

TEXT = "The tide came in twice a day, and the bell at the end of the pier rang without being touched. " * 40


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.gguf", n_expert=4, file_type="BF16")


@pytest.mark.slow
def test_a_file_of_a_size_is_measured_kept_and_repeated(mixcli: Runner, home: Path, model: Path) -> None:
    folder = model.parent
    (folder / "text.txt").write_text(TEXT)
    file, size = folder / "fitted.gguf", 1_300_000
    call = ("tailor", str(model), "--size", f"{size}", "--text", str(folder / "text.txt"), "--json")
    done = mixcli(*call, "-o", str(file))
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["file"], [one["context"] for one in data["contexts"]]) == (str(file), [512])
    assert 0.9 * size < file.stat().st_size <= size
    names = [one["file"] for one in data["contexts"][0]["files"]]
    assert {"tailored", "Q2_K", "Q4_K_M", "Q8_0"} <= set(names)
    measured = data["measured"]
    assert [one["kept"] for one in measured] == [True, *(False for _ in measured[1:])]
    assert measured[0]["kl_mean"] == min(one["kl_mean"] for one in measured)
    assert "tailored" in [one["file"] for one in measured]
    assert sorted(one.name for one in folder.iterdir() if one.name.startswith("fitted")) == [
        "fitted.gguf",
        "fitted.imatrix.gguf",
        "fitted.recipe.json",
    ]
    assert read_recipe(file) == read_recipe(folder / "fitted.recipe.json")
    again = folder / "again.gguf"
    with_recipe = ("--recipe", str(folder / "fitted.recipe.json"), "--imatrix", str(folder / "fitted.imatrix.gguf"))  # fmt: skip
    done = mixcli("quantize", str(model), *with_recipe, "-o", str(again))
    assert done.returncode == 0, done.stderr
    assert again.read_bytes() == file.read_bytes()
    assert distance_from_bindings(file, [1, *range(60, 110)]) < SAME


@pytest.mark.slow
def test_without_a_matrix_rules_choose_and_a_warning_says_so(mixcli: Runner, home: Path, model: Path) -> None:
    file = model.with_name("rules.gguf")
    done = mixcli("tailor", str(model), "--size", "1.4MB", "--imatrix", "none", "-o", str(file))
    assert done.returncode == 0, done.stderr
    assert "no importance matrix: types are chosen by size alone" in done.stderr
    assert file.stat().st_size <= 1_400_000
    assert not read_recipe(file).imatrix_sha256
    done = mixcli("tailor", str(model), "--size", "1KB", "--imatrix", "none", "-o", str(file))
    assert done.returncode == 4
    assert "no file of tiny is at most 1.0 kB: the smallest is" in done.stderr
    assert "pass a larger --size" in done.stderr
    done = mixcli("tailor", str(model), "--target-tps", "1", "--imatrix", "none", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "tiny, 1 tok/s or more, context 512" in done.stdout
    assert "tailored" in done.stdout


def test_what_cannot_be_is_refused_before_any_work(mixcli: Runner, home: Path, model: Path) -> None:
    small = tiny_model(model.with_name("small.gguf"), file_type="Q4_K_M")
    reader, fifo = tiny_model(model.with_name("reader.gguf"), file_type="Q8_0"), model.with_name("fifo.svg")
    os.mkfifo(fifo)
    model.with_name("notes.recipe.json").write_text('{"flour": 500}')
    before = reader.read_bytes()
    for arguments, message in (
        ((str(model), "--size", "1MB", "--all-on-gpu"), "--size cannot be combined with --all-on-gpu"),
        ((str(small), "--size", "1MB"), "is quantized already .* use its BF16 or Q8_0 file"),
        ((str(model), "--size", "1MB", "--imatrix", "nothing.gguf"), "nothing.gguf"),
        ((str(model), "--size", "1MB", "-o", str(model)), "tiny.gguf"),
        ((str(model), "--size", "1MB", "--reader", str(reader), "-o", str(reader)), "reader.gguf is a file of the source itself"),
        ((str(model), "--size", "1MB", "--imatrix", str(reader), "-o", str(reader)), "reader.gguf is a file of the source itself"),
        ((str(model), "--size", "1MB", "--svg", str(fifo)), "fifo.svg is a pipe"),
        ((str(model), "--size", "1MB", "--svg", str(model)), "exists and is not an SVG file"),
        ((str(model), "--size", "1MB", "-o", str(model.with_name("notes.gguf"))), "notes.recipe.json exists and is not a recipe"),
    ):  # fmt: skip
        done = mixcli("tailor", *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert re.search(message, done.stderr), done.stderr
    assert fifo.is_fifo()
    assert reader.read_bytes() == before


def test_a_limit_below_the_smallest_file_is_refused_before_a_text_is_read(
    mixcli: Runner, home: Path, model: Path
) -> None:
    for limit in (("--size", "1KB"), ("--all-on-gpu", "--profile", "rtx-4090", "--vram", "1MB")):
        done = mixcli("tailor", str(model), *limit)
        assert done.returncode == 4, done.stderr
        assert "no file of tiny" in done.stderr
        assert "reading" not in done.stderr
