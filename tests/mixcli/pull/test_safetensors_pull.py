"""mixcli pull --quant from a sharded safetensors repository: the bytes of a plain conversion, at most two shards on the disk, and kills."""

import hashlib
import json
import os
import random
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pytest

from mixcli.commands.auto_imatrix import place_of
from mixcli.insight.imatrix_file import write_imatrix
from mixcli.insight.importance import Importance
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import find
from profiles.quality import BITS
from profiles.request import PlanRequest
from quantize import Options, convert
from quantize.conversion import open_model
from quantize.sources.gguf_header import read_header
from tests.conftest import Runner
from tests.support import hub_server, small_gguf
from tests.support.checkpoints import write_checkpoint
from tests.support.fp8 import Style
from tests.support.hub_server import StandIn
from tests.support.newer_checkpoints import write_mistral4

NAME, COMMIT = "org/tiny-mixtral", "d" * 40
N_SHARDS = 8


@dataclass(frozen=True)
class Source:
    """A checkpoint as its repository has it, and what a plain conversion of the whole folder makes of it."""

    files: dict[str, bytes]
    expected: str
    size: int

    @property
    def shards(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items() if name.endswith(".safetensors")}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    place = tmp_path_factory.mktemp("full")
    folder = write_checkpoint(
        place / "models--org--tiny-mixtral/snapshots" / COMMIT, n_layer=6, n_ff=1024, n_shards=N_SHARDS
    )
    (folder / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: [en]\n---\n# Tiny\n")
    convert(folder, target := place / "full.gguf", Options(output_type="Q4_K_M"))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return Source(files, hashlib.sha256(target.read_bytes()).hexdigest(), target.stat().st_size)


@pytest.fixture
def repo(hub: StandIn, source: Source) -> hub_server.Repo:
    return hub.add(NAME, source.files, commit=COMMIT)


def shards_here(home: Path) -> list[Path]:
    return sorted((home / "huggingface").rglob("*.safetensors"))


@contextmanager
def peak_of(home: Path) -> Iterator[Callable[[], int]]:
    """Sample the bytes that a folder takes on the disk."""
    peak, stop = 0, threading.Event()

    def look() -> None:
        nonlocal peak
        while not stop.is_set():
            used = 0
            for folder, _, names in os.walk(home):
                for name in names:
                    try:
                        status = (Path(folder) / name).lstat()
                    except OSError:
                        continue
                    used += status.st_blocks * 512
            peak = max(peak, used)
            time.sleep(0.005)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: peak
    finally:
        stop.set()
        thread.join()


@pytest.mark.slow
def test_the_result_is_that_of_a_plain_conversion(
    hub: StandIn, repo, source: Source, pull, mixcli: Runner, home: Path
) -> None:
    hub.pause = 0.001
    with peak_of(home) as peak:
        done = pull(NAME, "--quant", "q4_k_m")
    assert done.returncode == 0, done.stderr
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert (model["model"], model["sha256"]) == (f"{NAME}:Q4_K_M", source.expected)
    assert hashlib.sha256(Path(model["path"]).read_bytes()).hexdigest() == source.expected
    assert (model["license"], model["revision"]) == ("Apache-2.0", COMMIT)
    assert shards_here(home) == []
    others = sum(len(data) for name, data in source.files.items() if name not in source.shards)
    two = sum(sorted(source.shards.values())[-2:])
    assert peak() <= source.size + two + others + (1 << 19), (
        "more than the result and two shards were on the disk"
    )
    assert peak() < source.size + sum(source.shards.values())
    assert sum(seen.sent for seen in hub.downloads()) == sum(source.shards.values()), "a byte came twice"


@pytest.mark.slow
def test_an_importance_matrix_weighs_as_in_a_plain_conversion(
    repo, source: Source, pull, mixcli: Runner, tmp_path: Path
) -> None:
    folder, matrix = tmp_path / "models--org--tiny-mixtral/snapshots" / COMMIT, tmp_path / "m.gguf"
    folder.mkdir(parents=True)
    for name, data in source.files.items():
        (folder / name).write_bytes(data)
    random = np.random.default_rng(2)
    entries = {
        one.name: Importance(
            random.random((prod(one.shape[:-2]), one.shape[-1]), np.float32),
            np.full(prod(one.shape[:-2]), 512),
        )
        for one in open_model(folder, Options()).tensors
        if len(one.shape) > 1 and one.name.startswith("blk.")
    }
    write_imatrix(matrix, entries, 512, "notes.txt")
    convert(folder, tmp_path / "plain.gguf", Options(output_type="Q3_K_M", imatrix=matrix))
    done = pull(NAME, "--quant", "Q3_K_M", "--imatrix", str(matrix))
    assert done.returncode == 0, done.stderr
    plain = hashlib.sha256((tmp_path / "plain.gguf").read_bytes()).hexdigest()
    assert [one["sha256"] for one in json.loads(mixcli("list", "--json").stdout)] == [plain]
    for where in ((NAME,), (str(folder), "--name", NAME)):
        again = pull(*where, "--quant", "Q3_K_M", "--imatrix", str(matrix))
        told = f"{NAME}:Q3_K_M is already installed; to quantize it again with --imatrix"
        assert (again.returncode, told in again.stderr) == (2, True), again.stderr


def test_an_importance_matrix_comes_from_an_installed_quant(
    repo, source: Source, pull, mixcli: Runner, home: Path, tmp_path: Path
) -> None:
    asked = (NAME, "--quant", "Q3_K_M", "--imatrix")
    done = pull(*asked, "auto")
    assert done.returncode == 2
    assert f"run `mixcli pull {NAME}` first" in done.stderr
    assert "no such file" in pull(*asked, "none.gguf").stderr
    assert pull(NAME, "--quant", "Q8_0").returncode == 0
    computed = place_of(find(f"{NAME}:Q8_0"), LoadOptions(PlanRequest()))
    assert (
        mixcli(
            "imatrix", f"{NAME}:Q8_0", "--chunks", "1", "--ctx", "64", "-o", str(tmp_path / "m.gguf")
        ).returncode
        == 0
    )
    (tmp_path / "m.gguf").rename(computed)  # as if by an earlier pull: reading the whole text takes a minute
    done = pull(*asked, "auto")
    assert done.returncode == 0, done.stderr
    assert f"using the importance matrix that {NAME}:Q8_0 computed before" in done.stderr
    (path,) = (row["path"] for row in json.loads(mixcli("list", "--json").stdout) if row["type"] == "Q3_K_M")
    assert read_header(Path(path)).get("quantize.imatrix.file") == computed.name


@pytest.mark.slow
def test_shards_are_kept_when_that_is_wanted_or_when_they_are_somebody_elses(
    repo, source: Source, pull, mixcli: Runner, home: Path
) -> None:
    assert pull(NAME, "--quant", "Q8_0", "--keep-source").returncode == 0
    assert len(shards_here(home)) == N_SHARDS
    assert pull(f"{NAME}:Q4_K_M").returncode == 0
    assert len(shards_here(home)) == N_SHARDS, "they were there before"
    models = {row["type"]: row for row in json.loads(mixcli("list", "--json").stdout)}
    assert models["Q4_K_M"]["sha256"] == source.expected


def test_a_dry_run_knows_the_result_to_the_byte(hub: StandIn, repo, source: Source, pull) -> None:
    summary = json.loads(pull(NAME, "--quant", "Q4_K_M", "--dry-run", "--json").stdout)
    assert summary["size"] == source.size
    assert summary["download"] == sum(source.shards.values())
    assert summary["disk"] == source.size + sum(sorted(source.shards.values())[-2:])
    assert sum(seen.sent for seen in hub.downloads()) < 1 << 20


def test_fp8_shards_are_quantized_as_they_come(
    hub: StandIn, pull, mixcli: Runner, home: Path, tmp_path: Path
) -> None:
    """Also where a weight and its scale lie in two shards, and without the shards that have only a vision part."""
    fp8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": None}}
    folder = write_mistral4(
        tmp_path / "models--org--tiny-small4/snapshots" / COMMIT,
        n_shards=17,
        change=Style("matrix").apply,
        **fp8,
    )
    place = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    scales = {name: name.removesuffix("_scale_inv") for name in place if name.endswith("_scale_inv")}
    apart = [name for name, weight in scales.items() if place[name] != place[weight]]
    seeing = {shard for name, shard in place.items() if "vision" in name or "projector" in name}
    unused = seeing - {shard for name, shard in place.items() if "language_model" in name}
    assert apart and unused
    target = tmp_path / "full.gguf"
    convert(folder, target, Options(output_type="Q5_K_M"))
    hub.add("org/tiny-small4", {path.name: path.read_bytes() for path in folder.iterdir()}, commit=COMMIT)
    summary = json.loads(pull("org/tiny-small4", "--quant", "Q5_K_M", "--dry-run", "--json").stdout)
    wanted = sum((folder / shard).stat().st_size for shard in {*place.values()} - unused)
    assert (summary["size"], summary["download"]) == (target.stat().st_size, wanted)
    done = pull("org/tiny-small4", "--quant", "Q5_K_M")
    assert done.returncode == 0, done.stderr
    assert "3 tensors of its vision part are skipped" in done.stderr
    (model,) = json.loads(mixcli("list", "--json").stdout)
    assert model["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert shards_here(home) == []


@pytest.mark.slow
def test_without_a_type_the_one_that_suits_is_made(hub: StandIn, repo, pull) -> None:
    assert pull(NAME, "--quant", "Q4_O").returncode == 2
    assert hub.downloads() == []
    summary = json.loads(pull(NAME, "--dry-run", "--json").stdout)
    assert sum(seen.sent for seen in hub.downloads()) < 1 << 20
    (chosen,) = [row for row in summary["types"] if row["chosen"]]
    assert summary["model"] == f"{NAME}:{chosen['type']}"
    assert chosen["reason"].startswith("chosen: balanced, ")
    assert {row["type"] for row in summary["types"]} == set(BITS)


@pytest.mark.slow
def test_the_command_that_is_offered_for_a_better_type_makes_it_in_one_pass(
    hub: StandIn, source: Source, pull, mixcli: Runner, tmp_path: Path
) -> None:
    for name, data in source.files.items():
        small_gguf.write(tmp_path / "source" / name, data)
    convert(tmp_path / "source", tmp_path / "q8.gguf", Options(output_type="Q8_0"))
    hub.add(
        "org/both", {**source.files, "tiny.Q8_0.gguf": (tmp_path / "q8.gguf").read_bytes()}, commit=COMMIT
    )
    done = pull("org/both", "--prefer", "speed")
    assert done.returncode == 0, done.stderr
    offered = re.search(
        r"note: (\w+) would suit this machine better \(.*\) but is not in this repository; .* in one pass: mixcli (pull .*)$",
        done.stderr,
        re.MULTILINE,
    )
    assert offered, done.stderr
    made = pull(*shlex.split(offered[2])[1:])
    assert made.returncode == 0, made.stderr
    have = [row["model"] for row in json.loads(mixcli("list", "--json").stdout)]
    assert have == sorted(["org/both:Q8_0", f"org/both:{offered[1]}"])
    lacking = pull("org/both:Q5_K_M")
    assert (lacking.returncode, lacking.stderr.count("\n")) == (2, 1)
    assert (
        "it has Q8_0; quantize it from the safetensors in one pass: mixcli pull org/both --quant Q5_K_M"
        in lacking.stderr
    )


@pytest.mark.slow
def test_the_catalogs_weights_are_quantized_when_that_is_asked_for(
    hub: StandIn, source: Source, pull, mixcli: Runner
) -> None:
    hub.add("mistralai/Mistral-7B-Instruct-v0.3", source.files, commit=COMMIT)
    done = pull("mistral", "--quant", "Q8_0")
    assert done.returncode == 0, done.stderr
    assert [row["model"] for row in json.loads(mixcli("list", "--json").stdout)] == ["mistral:Q8_0"]


@pytest.mark.slow
def test_kill_at_ten_moments(hub: StandIn, repo, source: Source, start_pull, home: Path) -> None:
    hub.pause = 0.002
    dice = random.Random(4)
    killed_at = []
    for _ in range(10):
        begun = sum(seen.sent for seen in hub.downloads())
        process = start_pull(NAME, "--quant", "Q4_K_M")
        moment = begun + dice.randrange(1, 6_000_000)
        while sum(seen.sent for seen in hub.downloads()) < moment and process.poll() is None:
            time.sleep(0.002)
        time.sleep(dice.random() * 0.3)
        process.kill()
        killed_at.append(process.wait())
    assert killed_at.count(-9) >= 6, "it was finished before it could be killed often enough"
    hub.pause = 0.0
    process = start_pull(NAME, "--quant", "Q4_K_M")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    (path,) = (home / "data/models").glob("*/*.gguf")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == source.expected
    assert shards_here(home) == []
    assert not list(home.rglob("*.incomplete"))
    assert not list(home.rglob("*.part"))
    again = sum(seen.sent for seen in hub.downloads()) - sum(source.shards.values())
    assert again <= 10 * (1 << 20)


@pytest.mark.slow
def test_an_interrupt_while_a_shard_arrives(hub: StandIn, repo, start_pull, home: Path) -> None:
    hub.pause = 0.02
    process = start_pull(NAME, "--quant", "Q4_K_M", "-q")
    while sum(seen.sent for seen in hub.downloads()) < 3 << 20:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(2)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, "Traceback" in err) == (130, False), err


@pytest.mark.slow
def test_a_shard_that_stays_wrong_ends_it_and_keeps_the_work(
    hub: StandIn, repo, source: Source, pull, home: Path
) -> None:
    last = sorted(source.shards)[-1]
    digest = hashlib.sha256(source.files[last]).hexdigest()
    hub.fault(
        hub_server.wrong_bytes,
        lambda seen: hub_server.is_download(seen) and digest in seen.path and seen.length > 1 << 20,
        9,
    )
    done = pull(NAME, "--quant", "Q4_K_M", "-q")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert last in done.stderr
    hub.faults.clear()
    before = sum(seen.sent for seen in hub.downloads())
    assert pull(NAME, "--quant", "Q4_K_M").returncode == 0
    assert sum(seen.sent for seen in hub.downloads()) - before <= 2 * source.shards[last], (
        "other shards came again"
    )


@pytest.mark.parametrize(
    "name", ["../../other/repo/resolve/main/x.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 7]
)
def test_an_index_that_points_elsewhere_makes_no_request(
    hub: StandIn, source: Source, pull, name: object
) -> None:
    index = json.loads(source.files["model.safetensors.index.json"])
    index["weight_map"]["model.norm.weight"] = name
    files = {**source.files, "model.safetensors.index.json": json.dumps(index).encode()}
    hub.add(NAME, files, commit=COMMIT, private=True)
    hub.add("other/repo", {"x.safetensors": b"secret"})
    done = pull(NAME, "--quant", "Q4_K_M", "-q", HF_TOKEN="hf_goodtoken")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert "not a plain .safetensors name" in done.stderr
    assert {seen.path.split("/")[1] for seen in hub.log if seen.server == "hub"} <= {"api", "org"}
    assert hub.downloads() == []


def test_a_shard_that_the_repository_lacks(hub: StandIn, source: Source, pull) -> None:
    files = {name: data for name, data in source.files.items() if name != sorted(source.shards)[2]}
    hub.add(NAME, files, commit=COMMIT)
    done = pull(NAME, "--quant", "Q4_K_M", "-q")
    assert (done.returncode, sorted(source.shards)[2] in done.stderr) == (5, True)
    assert hub.downloads() == []


def test_only_pickles(hub: StandIn, pull) -> None:
    hub.add(NAME, {"config.json": b"{}", "pytorch_model.bin": b"\x80\x02"})
    done = pull(NAME, "--quant", "Q4_K_M")
    assert (done.returncode, hub.downloads()) == (2, [])
    assert "neither GGUF nor safetensors" in done.stderr


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle(
    hub: StandIn, repo, source: Source, pull, online, home: Path
) -> None:
    import resource
    import sys

    limit = 6 << 20
    done = subprocess.run(
        [sys.executable, "-m", "mixcli", "pull", NAME, "--quant", "Q4_K_M", "-q"],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert pull(NAME, "--quant", "Q4_K_M").returncode == 0
    (path,) = (home / "data/models").glob("*/*.gguf")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == source.expected


def test_a_gguf_is_taken_when_there_is_one(hub: StandIn, pull, mixcli: Runner) -> None:
    hub.add("org/both", {"both.Q4_K_M.gguf": small_gguf.gguf()})
    assert pull("org/both", "--quant", "Q4_K_M").returncode == 0
