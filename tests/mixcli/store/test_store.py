"""The store's commands as processes: list, show, rm, verify, import, default, search, and what other programs brought."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mixcli.system import paths
from tests.conftest import Runner
from tests.support import small_gguf

MODEL = small_gguf.gguf()
DIGEST = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return small_gguf.write(tmp_path / "tiny-chat.F16.gguf", MODEL)


def in_hub_cache(home: Path, name: str = "m.Q4_K_M.gguf", commit: str = "a" * 40) -> Path:
    """Lay a model down as `hf download` does."""
    folder = home / "huggingface/hub/models--org--repo"
    small_gguf.write(folder / "blobs" / DIGEST, MODEL)
    pointer = folder / "snapshots" / commit / name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.symlink_to(f"../../blobs/{DIGEST}")
    return pointer


def in_ollama(home: Path, digest: str = f"sha256:{DIGEST}") -> None:
    store = home / "ollama"
    layers = [
        {"mediaType": "application/vnd.ollama.image.license", "digest": f"sha256:{'0' * 64}", "size": 1},
        {"mediaType": "application/vnd.ollama.image.model", "digest": digest, "size": len(MODEL)},
    ]
    manifest = json.dumps({"schemaVersion": 2, "layers": layers}).encode()
    small_gguf.write(store / "manifests/registry.ollama.ai/library/mixtral/8x7b", manifest)
    small_gguf.write(store / "blobs" / f"sha256-{DIGEST}", MODEL)


def test_an_imported_file_stays_where_it_is(mixcli: Runner, file: Path) -> None:
    done = mixcli("import", str(file))
    assert done.returncode == 0, done.stderr
    assert "tiny-chat:F16" in done.stderr
    assert "Apache-2.0: open weights" in done.stderr
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert (model["model"], model["path"], model["sha256"]) == ("tiny-chat:F16", str(file), DIGEST)
    assert (model["context"], model["last_used"]) == (512, None)
    assert mixcli("show", "tiny-chat", "--json").returncode == 0
    assert "already installed" in mixcli("import", str(file)).stderr
    assert mixcli("rm", "tiny-chat", "--yes").returncode == 0
    assert file.read_bytes() == MODEL
    assert mixcli("list", "--json").stdout.strip() == "[]"


def test_a_copy_is_the_stores_own(mixcli: Runner, file: Path, home: Path) -> None:
    assert mixcli("import", str(file), "--copy", "--name", "mine").returncode == 0
    file.unlink()
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["model"] == "mine:F16"
    assert Path(model["path"]).read_bytes() == MODEL
    plan = mixcli("rm", "mine", "--dry-run")
    assert "would delete" in plan.stderr
    assert Path(model["path"]).exists()
    assert mixcli("rm", "mine:f16", "-y").returncode == 0
    assert [path.name for path in (home / "data/models").iterdir() if path.is_dir()] == []


def test_a_model_in_parts_is_one_model(mixcli: Runner, tmp_path: Path) -> None:
    paths = [
        small_gguf.write(tmp_path / f"big.F16-{i + 1:05}-of-00003.gguf", data)
        for i, data in enumerate(small_gguf.split(3))
    ]
    assert mixcli("import", str(paths[0])).returncode == 0
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["files"] == list(map(str, paths))
    assert model["size"] == sum(path.stat().st_size for path in paths)
    card = json.loads(mixcli("show", "big", "--json").stdout)
    assert card["experts"] == 2
    assert "experts" in card["types"], "tensors of the last part are missing"
    assert mixcli("verify", "big").returncode == 0
    paths[2].unlink()
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["damaged"].startswith(f"big:F16: {paths[2]} is missing; ")


def test_any_part_stands_for_the_model(mixcli: Runner, tmp_path: Path) -> None:
    """For every command that is given a path; one that is missing is named, whichever was given."""
    paths = [
        small_gguf.write(tmp_path / f"big.F16-{i + 1:05}-of-00003.gguf", data)
        for i, data in enumerate(small_gguf.split(3))
    ]
    shown = [mixcli("show", str(path), "--json") for path in paths]
    assert {done.returncode for done in shown} == {0}, shown[0].stderr
    assert shown[0].stdout == shown[1].stdout == shown[2].stdout
    assert json.loads(shown[2].stdout)["files"] == list(map(str, paths))
    checked = json.loads(mixcli("verify", str(paths[1]), "--json").stdout)
    assert [row["path"] for row in checked] == list(map(str, paths))
    assert mixcli("import", str(paths[2])).returncode == 0
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["files"] == list(map(str, paths))
    paths[0].unlink()
    for command in ("show", "plan", "import"):
        done = mixcli(command, str(paths[1]), *(["--name", "other"] if command == "import" else []))
        assert (done.returncode, f"{paths[0]} is missing" in done.stderr) == (5, True), (command, done.stderr)


@pytest.mark.parametrize(
    ("content", "words", "code"),
    [
        (b"", "is empty", 5),
        (b"<html>no</html>", "HTML", 5),
        (MODEL[:-1], "1 of", 5),
        (small_gguf.gguf(split_experts=True), "mixcli convert", 2),
    ],
)
def test_what_is_no_sound_model_is_not_imported(
    mixcli: Runner, tmp_path: Path, content: bytes, words: str, code: int
) -> None:
    done = mixcli("import", str(small_gguf.write(tmp_path / "x.Q4_0.gguf", content)))
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)
    assert words in done.stderr
    assert json.loads(mixcli("list", "--json").stdout) == []


def test_verify_finds_one_flipped_bit(mixcli: Runner, file: Path) -> None:
    mixcli("import", str(file))
    assert mixcli("verify").stdout.endswith("sound\n")
    changed = bytearray(MODEL)
    changed[len(MODEL) // 2] ^= 1
    file.write_bytes(changed)
    done = mixcli("verify", "tiny-chat", "--json")
    assert done.returncode == 5
    assert json.loads(done.stdout)[0]["sound"] is False
    assert str(file) in done.stderr
    assert f"mixcli import {file}" in done.stderr


def test_the_default_is_what_is_meant(mixcli: Runner, file: Path) -> None:
    assert mixcli("default").returncode == 2
    mixcli("import", str(file))
    mixcli("import", str(file), "--name", "other", "--copy")
    assert "several models are installed" in mixcli("show").stderr
    assert "other:F16" in mixcli("show", MIXCLI_MODEL="other").stdout
    assert mixcli("default", "otter").returncode == 2
    assert mixcli("default", "other").returncode == 0
    assert mixcli("default").stdout == "other:F16\n"
    assert json.loads(mixcli("show", "--json").stdout)["model"] == "other:F16"
    assert mixcli("rm", "other", "-y").returncode == 0
    assert mixcli("default").returncode == 2


@pytest.mark.parametrize("command", [["run", "hi", "-m"], ["rm"], ["bench"], ["verify"]])
def test_a_quant_that_a_model_does_not_have_is_not_advised(mixcli: Runner, command: list[str]) -> None:
    done = mixcli(*command, "demo:Q9_9")
    assert done.returncode == 2
    assert "demo has no quant 'Q9_9'; use Q4_K_M" in done.stderr
    assert "mixcli pull demo:Q8_0" in mixcli(*command, "demo:Q8_0").stderr


def test_search_is_the_catalog_and_says_what_fits(mixcli: Runner, file: Path) -> None:
    mixcli("import", str(file), "--name", "mistral")
    rows = {row["name"]: row for row in json.loads(mixcli("search", "--json").stdout)}
    assert rows["mistral"]["here"]
    assert not rows["mixtral"]["here"]
    assert rows["demo"]["fits"] == "Q4_K_M"
    assert rows["dolphin-mixtral"]["alignment"] == "uncensored"
    found = {row["name"]: row for row in json.loads(mixcli("search", "codestral", "--json").stdout)}
    assert found.keys() == {"codestral"}
    assert "research and testing, not commercial use" in found["codestral"]["license_words"]
    assert "no catalog model matches" in mixcli("search", "gpt-4").stderr
    shown = mixcli("search").stdout
    assert "mixtral-8x22b\t140.6B/39.1B\t65536\tinstruct\tv3\tApache-2.0\t" in shown
    assert "codestral\t22.2B\t32768\tinstruct\tv3\tMNPL-0.1 (not open)\t" in shown
    assert "ministral-3-3b-reasoning\t3.4B\t262144\treasoning\tv13\tApache-2.0\t" in shown
    assert "\tSUITS THIS MACHINE\n" in shown
    assert "\tSUITS rtx-4090\n" in mixcli("search", "reasoning", "--profile", "rtx-4090").stdout


def test_models_of_other_programs_are_seen_and_left_alone(mixcli: Runner, home: Path) -> None:
    pointer = in_hub_cache(home)
    in_ollama(home)
    small_gguf.write(home / "lmstudio/someone/some-GGUF/some.Q8_0.gguf", MODEL)
    before = sorted(path for path in home.rglob("*") if path.is_file())
    rows = {row["model"]: row for row in json.loads(mixcli("list", "--json").stdout)}
    assert {name: row["keeper"] for name, row in rows.items()} == {
        "org/repo:Q4_K_M": "Hub cache",
        "ollama/mixtral:8x7b": "Ollama",
        "lmstudio/someone/some-GGUF:Q8_0": "LM Studio",
    }
    assert rows["org/repo:Q4_K_M"]["path"] == str(pointer), (
        "its parts would lie beside the pointer, not the blob"
    )
    for name in rows:
        card = json.loads(mixcli("show", name, "--json").stdout)
        assert (card["model"], card["layers"]) == (name, 1)
        assert mixcli("verify", name).returncode == 0
        done = mixcli("rm", name, "-y")
        assert (done.returncode, "does not remove it" in done.stderr) == (2, True)
    assert mixcli("show", "org/repo", "--json").returncode == 0, "the type may be left out"
    assert before == sorted(path for path in home.rglob("*") if path.is_file())


def test_a_flipped_bit_in_ollamas_store_is_found(mixcli: Runner, home: Path) -> None:
    in_ollama(home)
    blob = home / "ollama/blobs" / f"sha256-{DIGEST}"
    blob.write_bytes(MODEL[:-1] + bytes([MODEL[-1] ^ 1]))
    assert mixcli("verify", "ollama/mixtral:8x7b").returncode == 5


@pytest.mark.parametrize(
    "digest", ["sha256:../../../../secret", "sha256:" + "f" * 64, 7, None, "sha256-" + "A" * 64]
)
def test_manifests_that_lie_are_left_out(mixcli: Runner, home: Path, digest: object) -> None:
    in_ollama(home, digest)  # type: ignore[arg-type]
    small_gguf.write(home / "ollama/manifests/registry.ollama.ai/library/bomb/latest", b"[" * 100_000)
    done = mixcli("list", "--json")
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_broken_file_costs_its_numbers_only(mixcli: Runner, home: Path) -> None:
    small_gguf.write(home / "lmstudio/a/b/broken.Q4_0.gguf", MODEL[:100])
    (row,) = json.loads(mixcli("list", "--json").stdout)
    assert row["parameters"] == 0
    assert "incomplete" in row["problem"]
    assert mixcli("list").returncode == 0


def test_where_the_hubs_cache_is_follows_huggingface_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings: list[dict[str, str]] = [
        {},
        {"HF_HOME": str(tmp_path / "hf")},
        {"XDG_CACHE_HOME": str(tmp_path / "xdg")},
        {"HF_HUB_CACHE": "~/elsewhere", "HF_HOME": "/ignored"},
    ]
    for setting in settings:
        for name in ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in setting.items():
            monkeypatch.setenv(name, value)
        code = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
        theirs = subprocess.check_output(
            [sys.executable, "-c", code], text=True, env=dict(os.environ)
        ).strip()
        assert paths.hub_cache_dir() == Path(theirs)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs Linux's unshare")
def test_a_store_that_is_read_only_can_be_read_and_refuses_a_pull(
    mixcli: Runner, file: Path, home: Path
) -> None:
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99\n'
        '"$2" -m mixcli show tiny-chat --json && "$2" -m mixcli list && "$2" -m mixcli pull mixtral'
    )
    mixcli("import", str(file))
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(home), sys.executable],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 99 or "unshare:" in done.stderr:
        pytest.skip("needs user namespaces")
    assert "tiny-chat:F16" in done.stdout
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "read-only; set HF_HOME to" in done.stderr
