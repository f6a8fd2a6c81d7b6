"""imatrix and perplexity on the command line: a whole round with tiny models, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from quantize.imatrix import read_imatrix
from tests.conftest import Runner
from tests.support.tiny_models import tiny_model

TEXT = (
    "The tide came in twice a day, and twice a day the bell at the end of the pier rang without being touched. "
    * 40
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "tiny.gguf", n_expert=8)


@pytest.mark.slow
def test_from_a_text_to_a_quantized_file_and_its_distance(
    mixcli: Runner, home: Path, model: Path, tmp_path: Path
) -> None:
    matrix, small = tmp_path / "m.gguf", tmp_path / "small.gguf"
    done = mixcli(
        "imatrix",
        str(model),
        "--text",
        "-",
        "-o",
        str(matrix),
        "--chunks",
        "2",
        "--ctx",
        "128",
        "--json",
        stdin=TEXT,
    )
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    assert (data["file"], data["tokens"], data["chunks"], data["tensors"]) == (str(matrix), 256, 2, 16)
    assert sum(one["tokens"] for one in data["experts"]) == 256 * 2 * 2, "tokens x experts used x layers"
    assert data["experts"] == sorted(data["experts"], key=lambda one: one["tokens"])
    assert f"--imatrix {matrix}" in done.stderr
    assert "better matrix" not in done.stderr
    assert read_imatrix(matrix).dataset == "-"
    assert not matrix.with_name("m.gguf.part").exists()

    done = mixcli("quantize", str(model), "Q3_K_M", "--imatrix", str(matrix), "-o", str(small))
    assert done.returncode == 0, done.stderr
    done = mixcli(
        "imatrix",
        str(small),
        "--text",
        "-",
        "-o",
        str(tmp_path / "n.gguf"),
        "--ctx",
        "64",
        "--chunks",
        "1",
        stdin=TEXT,
    )
    assert (
        f"{small} is quantized to Q3_K_M; the importance matrix of its BF16 or Q8_0 file is better"
        in done.stderr
    )

    notes = tmp_path / "notes.txt"
    notes.write_text(TEXT)
    done = mixcli(
        "perplexity",
        str(small),
        "--baseline",
        str(model),
        "--text",
        str(notes),
        "--ctx",
        "128",
        "--chunks",
        "4",
    )
    assert done.returncode == 0, done.stderr
    head, row = (line.split("\t") for line in done.stdout.splitlines())
    assert head[4:] == ["KL MEAN", "KL MEDIAN", "KL 99 %", "SAME TOKEN"]
    assert row[0] == "notes.txt"
    mean, error = map(float, row[4].split(" ± "))
    assert 0 < error < mean < float(row[6].split()[0])
    assert len(list((home / "cache" / "baselines").glob("*.baseline"))) == 1


def test_rare_experts_are_named(mixcli: Runner, model: Path, tmp_path: Path) -> None:
    done = mixcli(
        "imatrix", str(model), "--chunks", "1", "--ctx", "64", "--smooth", "32", "-o", str(tmp_path / "m.dat")
    )
    assert done.returncode == 0, done.stderr
    assert "experts saw fewer than 64 tokens: expert " in done.stderr
    assert "topped up to 32 by --smooth" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["imatrix", "{model}", "--text", "{folder}/none.txt"], 2, "no such file"),
        (["imatrix", "{model}", "--text", "{model}"], 2, "is a GGUF model"),
        (["imatrix", "{model}", "-o", "{model}"], 2, "{model}"),
        (["imatrix", "{model}", "-o", "{folder}/mine.gguf"], 2, "is not an importance matrix"),
        (["imatrix", "{model}", "-o", "-"], 2, "pass a file with -o"),
        (["imatrix", "{model}", "-o", "{folder}/x.gguf"], 2, "x.gguf.part exists and is not an unfinished importance matrix"),
        (["imatrix", "{model}", "--text", "{folder}/short.txt"], 2, "less than one chunk of 512"),
        (["imatrix", "{model}", "--ctx", "16"], 2, "64"),
        (["perplexity", "{model}", "--text", "{folder}/short.txt"], 2, "short.txt (13 characters): less than one chunk of 512 tokens"),
        (["perplexity", "{model}", "--baseline", "nothing-of-that-name"], 2, "nothing-of-that-name"),
        (["perplexity", "{model}", "--baseline", "{folder}/other.gguf", "--chunks", "1"], 2, "split the text differently"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    mixcli: Runner, model: Path, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    (tmp_path / "short.txt").write_text("A short text.\n")
    (tmp_path / "x.gguf.part").write_text("My notes.\n")
    (tmp_path / "mine.gguf").write_bytes(model.read_bytes())
    if "{folder}/other.gguf" in arguments:
        tiny_model(tmp_path / "other.gguf", n_vocab=330)
    names = {"model": str(model), "folder": str(tmp_path)}
    done = mixcli(*(one.format(**names) for one in arguments))
    assert done.returncode == code, done.stderr
    assert sentence.format(**names) in done.stderr
    assert done.stderr.count("mixcli: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_quants_are_compared_with_the_largest(mixcli: Runner, model: Path, tmp_path: Path) -> None:
    small, notes = tmp_path / "small.gguf", tmp_path / "notes.txt"
    notes.write_text(TEXT)
    assert mixcli("quantize", str(model), "Q4_K_M", "-o", str(small)).returncode == 0
    done = mixcli(
        "compare", str(small), str(model), "--text", str(notes), "--ctx", "128", "--chunks", "4", "--json"
    )
    assert done.returncode == 0, done.stderr
    large, other = json.loads(done.stdout)
    assert (large["label"], large["scores"]) == (str(model), None)
    assert large["n_bytes"] == model.stat().st_size
    assert 16 < large["bits"] < 16.2
    assert 0 < other["scores"]["kl_mean"]["value"] < 0.01
    assert large["perplexity"] == other["scores"]["baseline_perplexity"]
    for one in (large, other):
        assert one["speed"]["prefill"] > 0
        assert one["speed"]["decode"] > 0
        assert one["speed"]["bytes_on"]["host"] > one["n_bytes"]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["{model}"], "compare needs at least two models"),
        (["{model}", "{model}"], "is given twice; pass each model once"),
        (["nothing:Q3_K_M,Q4_K_M"], "nothing:Q3_K_M"),
    ],
)
def test_a_comparison_needs_two_models(mixcli: Runner, model: Path, names: list[str], sentence: str) -> None:
    done = mixcli("compare", *(name.format(model=model) for name in names))
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_dry_run_tells_the_time_for_a_model_and_a_machine_that_are_not_here(mixcli: Runner) -> None:
    arguments = ("mixtral:Q4_K_M", "--profile", "rtx-4090", "--dry-run", "--json")
    done = mixcli("perplexity", *arguments, "--baseline", "mixtral:Q8_0", "--chunks", "8")
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout)
    assert (small["model"], large["model"], small["n_tokens"]) == ("mixtral:Q4_K_M", "mixtral:Q8_0", 4096)
    assert small["seconds"] == pytest.approx(4096 / small["prefill"] + small["seconds_host"])
    assert 200 < large["prefill"] < small["prefill"]
    (one,) = json.loads(mixcli("imatrix", *arguments).stdout)
    shown = mixcli("imatrix", *arguments[:-1]).stdout
    assert re.search(r"\tabout \d+ (s|min) after loading\n", shown)
    assert one["n_tokens"] % 512 == 0
    assert one["n_tokens"] > 4096
