"""Two models that would have one label: the installed one is never taken for the other, and nothing is made of what another run left."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from mixcli.pull import local_build
from mixcli.store import build_folder
from mixcli.store.store import find
from quantize import Options, convert
from tests.conftest import Runner
from tests.support import small_gguf
from tests.support.checkpoints import write_checkpoint
from tests.support.hub_server import StandIn

PLAIN, WEIGHED, LARGE = (small_gguf.gguf(size, seed=seed) for size, seed in ((3_000_000, 1), (3_000_000, 2), (5_000_000, 3)))  # fmt: skip
FILES = {"tiny.Q4_K_M.gguf": PLAIN, "tiny-imat.Q4_K_M.gguf": WEIGHED, "tiny.Q8_0.gguf": LARGE}
Pull = Callable[..., "subprocess.CompletedProcess[str]"]


def content(mixcli: Runner) -> dict[str, bytes]:
    """Return the bytes of every installed model by its label."""
    return {
        row["model"]: Path(row["path"]).read_bytes() for row in json.loads(mixcli("list", "--json").stdout)
    }


def test_a_named_file_is_never_another_one(hub: StandIn, pull: Pull, mixcli: Runner) -> None:
    hub.add("org/tiny-GGUF", FILES)
    assert pull("org/tiny-GGUF:Q4_K_M").returncode == 0
    done = pull("org/tiny-GGUF/tiny.Q8_0.gguf")
    assert done.returncode == 0, done.stderr
    assert content(mixcli) == {"org/tiny-GGUF:Q4_K_M": PLAIN, "org/tiny-GGUF:Q8_0": LARGE}
    n_requests = len(hub.log)
    for file in ("tiny.Q8_0.gguf", "tiny.Q4_K_M.gguf"):
        assert "already installed" in pull(f"org/tiny-GGUF/{file}").stderr
    assert len(hub.log) == n_requests, "what is here needs no network"
    refused = pull("org/tiny-GGUF/tiny-imat.Q4_K_M.gguf")
    assert refused.returncode == 2, refused.stderr
    assert "org/tiny-GGUF:Q4_K_M is already installed" in refused.stderr
    assert "not from org/tiny-GGUF/tiny-imat.Q4_K_M.gguf; pass another name with --name" in refused.stderr
    assert pull("org/tiny-GGUF/tiny-imat.Q4_K_M.gguf", "--name", "weighed").returncode == 0
    assert content(mixcli)["weighed:Q4_K_M"] == WEIGHED


def test_a_name_that_another_repository_has_is_refused(hub: StandIn, pull: Pull, mixcli: Runner) -> None:
    hub.add("org/one", {"one.Q4_K_M.gguf": PLAIN})
    hub.add("org/two", {"two.Q4_K_M.gguf": WEIGHED})
    assert pull("org/one:Q4_K_M", "--name", "mine").returncode == 0
    refused = pull("org/two:Q4_K_M", "--name", "mine")
    assert refused.returncode == 2, refused.stderr
    assert "mine:Q4_K_M is already installed, from org/one@" in refused.stderr
    assert "and not from org/two:Q4_K_M" in refused.stderr
    assert "already installed" in pull("org/one:Q4_K_M", "--name", "mine").stderr
    assert content(mixcli) == {"mine:Q4_K_M": PLAIN}


def test_a_folder_of_the_same_name_or_with_other_files_is_refused(
    mixcli: Runner, home: Path, tmp_path: Path
) -> None:
    one, two = (
        write_checkpoint(tmp_path / place / "tiny", n_layer=1, seed=seed) for seed, place in enumerate("ab")
    )
    ask = ("--quant", "q8_0")
    assert mixcli("pull", str(one), *ask).returncode == 0
    before = content(mixcli)
    refused = mixcli("pull", str(two), *ask)
    assert refused.returncode == 2, refused.stderr
    assert f"tiny:Q8_0 is already installed, from {one}, and not from {two}" in refused.stderr
    assert "already installed" in mixcli("pull", str(one), *ask).stderr
    weights = next(one.glob("*.safetensors"))
    os.utime(weights, (weights.stat().st_mtime + 3600,) * 2)  # trained further
    refused = mixcli("pull", str(one), *ask)
    assert refused.returncode == 2, refused.stderr
    assert (
        f"tiny:Q8_0 is already installed, made before {weights.name} changed; to make it again"
        in refused.stderr
    )
    assert content(mixcli) == before


def test_a_finished_file_of_another_source_is_not_published(home: Path, tmp_path: Path) -> None:
    """A run that was killed while it hashed its result leaves the whole file in the work folder."""
    one, two = (
        write_checkpoint(tmp_path / place / "tiny", n_layer=1, seed=seed) for seed, place in enumerate("ab")
    )
    target = build_folder.work_folder("tiny", "Q8_0") / "tiny-Q8_0.gguf"

    def killed(_done: float, _total: float, stage: str = "") -> None:
        if stage.startswith("checking"):
            raise KeyboardInterrupt

    def made(folder: Path, report: Callable[..., None]) -> None:
        local_build.from_folder(folder, "Q8_0", None, None, report)  # type: ignore[arg-type]

    with pytest.raises(KeyboardInterrupt):
        made(one, killed)
    left = target.stat()
    with pytest.raises(KeyboardInterrupt):
        made(one, killed)
    assert target.stat().st_mtime_ns == left.st_mtime_ns, "the same source need not be converted again"
    made(two, lambda *_: None)
    convert(two, tmp_path / "two.gguf", Options(output_type="Q8_0"))
    assert find("tiny").path.read_bytes() == (tmp_path / "two.gguf").read_bytes()


def test_fit_is_for_the_hub(mixcli: Runner, home: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", n_layer=1)
    assert mixcli("pull", str(folder), "--quant", "q8_0").returncode == 0
    before = content(mixcli)
    for dry in ((), ("--dry-run",)):
        refused = mixcli("pull", str(folder), "--fit", "--size", "1GB", *dry)
        assert refused.returncode == 2, refused.stderr
        assert f"--fit is for models of the Hub, and {folder} is made on this machine; use: mixcli tailor {folder}" in refused.stderr  # fmt: skip
    assert content(mixcli) == before, "nothing was converted to BF16"
    refused = mixcli("pull", "demo", "--fit", "--size", "1GB")
    assert "use: mixcli pull demo:BF16 && mixcli tailor demo:BF16" in refused.stderr
    shutil.rmtree(folder)
