"""mixcli convert, quantize and pull FOLDER, as processes on a tiny real checkpoint."""

import json
from pathlib import Path

import pytest

from mixcli.system.formatting import format_bytes
from quantize.sources.gguf_header import read_header
from tests.conftest import Runner
from tests.support.checkpoints import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny-mixtral")


@pytest.mark.slow
def test_a_folder_becomes_a_gguf_and_that_one_a_smaller_one(
    mixcli: Runner, checkpoint: Path, tmp_path: Path
) -> None:
    big = tmp_path / "big.gguf"
    done = mixcli("convert", str(checkpoint), "-t", "bf16", "-o", str(big))
    assert (done.returncode, done.stdout) == (0, f"{big}\n"), done.stderr
    header = read_header(big)
    assert header.get("llama.expert_count") == 4
    small = tmp_path / "small.gguf"
    done = mixcli("quantize", str(big), "q4_k_m", "-o", str(small), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bytes"] == small.stat().st_size < big.stat().st_size
    for command in (["quantize", str(small), "Q3_K_M"], ["convert", str(small), "-t", "Q3_K_M"]):
        again = [*command, "-o", str(tmp_path / "again.gguf")]
        refused = mixcli(*again)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
        assert "would lose more quality" in refused.stderr
        assert mixcli(*again, "--allow-requantize").returncode == 0
    assert mixcli("import", str(big), "--name", "big").returncode == 0
    by_name = mixcli("quantize", "big", "Q8_0", "--dry-run")
    assert (by_name.returncode, "working memory" in by_name.stdout) == (0, True), by_name.stderr
    assert "did you mean big?" in mixcli("quantize", "bgi", "Q8_0", "--dry-run").stderr


@pytest.mark.slow
def test_a_dry_run_tells_the_size_to_the_byte_and_writes_nothing(
    mixcli: Runner, checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "result.gguf"
    args = (
        "convert",
        str(checkpoint),
        "-o",
        str(target),
        "--tensor",
        "ffn_down_exps=Q8_0",
        "--token-embedding-type",
        "Q6_K",
    )
    ledger = json.loads(mixcli(*args, "--dry-run", "--json").stdout)
    assert not list(tmp_path.glob("*.gguf*"))
    plain = mixcli(*args, "--dry-run")
    assert "experts\tQ8_0\t2\t" in plain.stdout
    assert "embedding\tQ6_K\t1\t" in plain.stdout
    assert mixcli(*args).returncode == 0
    assert ledger["bytes_disk"] == target.stat().st_size
    assert 0 < ledger["seconds"] < 10
    assert ", about 1 s\n" in plain.stdout


@pytest.mark.slow
def test_shards_are_named_as_llama_cpp_names_them(mixcli: Runner, checkpoint: Path, tmp_path: Path) -> None:
    done = mixcli("convert", str(checkpoint), "-o", str(tmp_path / "cut.gguf"), "--split-max-size", "8MB")
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.split()]
    assert len(paths) > 1
    assert paths[0].name == f"cut-00001-of-{len(paths):05}.gguf"
    assert all(path.exists() for path in paths)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["convert", "{}", "-t", "Q4_O"], 2, "Q4_O is not a quant"),
        (["convert", "{}", "--tensor", "ffn_down"], 2, "is not REGEX=TYPE"),
        (["convert", "{}", "--tensor", "ffn_down=Q99"], 2, "Q99"),
        (["convert", "{}", "--max-memory", "lots"], 2, "invalid size"),
        (["convert", "{}", "-t", "IQ2_XXS"], 2, "needs an importance matrix"),
        (["convert", "{}/nowhere"], 2, "no such file"),
        (["convert", "{}", "--recipe", "{}"], 2, "is a folder; use a regular file"),
        (["convert", "{}", "--imatrix", "/dev/null"], 2, "is a device or a pipe; use a regular file"),
        (["pull", "{}/", "--type", "Q4_K_M", "--imatrix", "{}"], 2, "is a folder; use a regular file"),
        (["tailor", "{}", "--size", "1GB", "--imatrix", "{}"], 2, "is a folder; use a regular file"),
        (["quantize", "{}/model.safetensors", "Q4_K_M"], 5, "safetensors"),
        (["pull", "{}/", "--type", "Q4_O"], 2, "Q4_O is not a quant"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    mixcli: Runner, checkpoint: Path, args: list[str], code: int, words: str, tmp_path: Path
) -> None:
    done = mixcli(*(arg.format(checkpoint) for arg in args))
    assert done.stderr.count("\n") == 1, done.stderr
    assert words in done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_a_pulled_folder_without_a_type_becomes_the_one_that_suits(mixcli: Runner, checkpoint: Path) -> None:
    done = mixcli("pull", str(checkpoint), "--prefer", "quality")
    assert done.returncode == 0, done.stderr
    assert "Q8_0 suits this machine: decode " in done.stderr
    assert "(quality, the lowest loss with at least 10 tok/s); others: Q6_K " in done.stderr
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["type"] == "Q8_0"


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, "q8_0"])
def test_a_dry_run_of_a_folder_tells_what_would_be_made(
    mixcli: Runner, home: Path, checkpoint: Path, kind: str | None
) -> None:
    args = ["pull", str(checkpoint), *(["--prefer", "quality"] if kind is None else ["--quant", kind])]
    summary = json.loads(mixcli(*args, "--dry-run", "--json").stdout)
    assert (summary["model"], summary["download"]) == ("tiny-mixtral:Q8_0", 0)
    assert [(row["type"], row["on_offer"]) for row in summary["types"] if row["chosen"]] == [("Q8_0", True)]
    assert len(summary["types"]) > 5 or kind is not None
    assert 0 < summary["seconds"] < 10
    shown = mixcli(*args, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert f"result\t{format_bytes(summary['size'])}, about 1 s\n" in shown.stdout
    assert not list((home / "data").rglob("*.gguf*"))
    model = json.loads(mixcli(*args, "--json").stdout)
    assert Path(model["path"]).stat().st_size == summary["size"] == summary["disk"]


def test_a_pulled_folder_is_a_model_of_the_store(mixcli: Runner, checkpoint: Path) -> None:
    done = mixcli("pull", str(checkpoint), "--type", "q8_0", "--name", "tiny")
    assert done.returncode == 0, done.stderr
    assert "license: unknown" in done.stderr
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert (model["model"], model["license"]) == ("tiny:Q8_0", "unknown")
    assert Path(model["path"]).stat().st_size == model["size"]
    assert json.loads(mixcli("show", "tiny", "--json").stdout)["experts"] == 4
    again = mixcli("pull", str(checkpoint), "--type", "q8_0", "--name", "tiny")
    assert "already installed" in again.stderr
