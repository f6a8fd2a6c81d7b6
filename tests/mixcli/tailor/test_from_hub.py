"""mixcli pull --fit: shards are measured and written as they arrive, and the file is that of the whole checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from quantize import Options, convert
from quantize.tailor.recipe_file import read_recipe
from tests.conftest import Runner
from tests.support.checkpoints import write_checkpoint
from tests.support.hub_server import StandIn

NAME, COMMIT, SIZE = "org/tiny-mixtral", "d" * 40, 14_500_000


@pytest.mark.slow
def test_a_checkpoint_of_the_hub_is_fitted_in_two_passes(
    hub: StandIn, pull: Callable[..., "object"], mixcli: Runner, home: Path, tmp_path: Path
) -> None:
    folder = write_checkpoint(
        tmp_path / "models--org--tiny-mixtral/snapshots" / COMMIT, n_layer=2, n_ff=512, n_shards=3
    )
    hub.add(NAME, {path.name: path.read_bytes() for path in folder.iterdir()}, commit=COMMIT)
    done = pull(NAME, "--fit", "--size", str(SIZE))
    assert done.returncode == 2
    assert "--fit computes with an installed quant of org/tiny-mixtral, and none is installed; run `mixcli pull org/tiny-mixtral` first" in done.stderr  # fmt: skip
    for arguments, message in (
        (("--fit", "--quant", "q8_0"), "--fit chooses every type by measuring; remove --quant"),
        (("--fit", "--imatrix", "no-such.gguf"), "no such file: no-such.gguf"),
        (("--size", "1GB"), "--size has no effect without --fit"),
    ):
        refused = pull(NAME, *arguments)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr
    done = pull(NAME, "--fit", "--size", "1KB", "--dry-run")
    assert (done.returncode, "no file of tiny-mixtral is at most 1.0 kB" in done.stderr) == (4, True)
    done = pull(NAME, "--fit", "--size", str(SIZE), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert (plan["model"], plan["download"], len(plan["files"])) == (f"{NAME}:TAILORED", 2 * n_bytes, 3)
    assert 0.9 * SIZE < plan["size"] <= SIZE
    assert "3 shards are downloaded twice" in plan["notes"][0]
    assert "none is installed; run `mixcli pull org/tiny-mixtral` first" in plan["notes"][1]
    assert mixcli("list", "--json").stdout.strip() == "[]"
    done = pull(NAME, "--quant", "q8_0")
    assert done.returncode == 0, done.stderr
    done = pull(NAME, "--fit", "--size", "1KB")
    assert (done.returncode, "computing" in done.stderr) == (4, False), done.stderr
    done = pull(NAME, "--fit", "--size", str(SIZE))
    assert done.returncode == 0, done.stderr
    assert "3 shards" in done.stderr
    (model,) = (one for one in json.loads(mixcli("list", "--json").stdout) if one["model"] == f"{NAME}:TAILORED")  # fmt: skip
    path = Path(model["path"])
    assert 0.9 * SIZE < path.stat().st_size <= SIZE
    assert not list((home / "huggingface").rglob("*.safetensors")), "no shard stays"
    (imatrix,) = home.rglob("*.imatrix.gguf")
    (tmp_path / "recipe.json").write_text(read_recipe(path).to_json())
    whole = tmp_path / "whole.gguf"
    convert(folder, whole, Options(recipe=tmp_path / "recipe.json", imatrix=imatrix))
    assert whole.read_bytes() == path.read_bytes()
