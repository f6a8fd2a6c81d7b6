"""Pulls of other families: a GGUF that llama.cpp reads arrives with a note, one that it does not is refused after its header."""

import json
from pathlib import Path

import pytest

from quantize.source import Value
from tests.conftest import mixcli_process
from tests.support import family_gguf
from tests.support.hub_server import StandIn


def file_of(folder: Path, family: str, changes: dict[str, Value | None] | None = None) -> bytes:
    return family_gguf.write(family, folder / f"{family}.gguf", changes=changes).read_bytes()


@pytest.mark.slow
def test_one_that_runs_is_planned_from_its_header_and_arrives_with_a_note(
    hub: StandIn, pull, online: dict[str, str], home: Path, tmp_path: Path
) -> None:
    hub.add("org/other-GGUF", {"other.F16.gguf": file_of(tmp_path, "qwen3moe")})
    planned = mixcli_process(home, ["plan", "org/other-GGUF", "--profile", "rtx-4090", "--json"], **online)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert "a qwen3moe model runs as" in plan["reasons"][0]
    assert plan["ledger"][-1]["compute"] > 0
    done = pull("org/other-GGUF")
    assert done.returncode == 0, done.stderr
    (note,) = (line for line in done.stderr.splitlines() if "Mistral family" in line)
    assert note.startswith("note: mixcli is tested with the Mistral family only; a qwen3moe model runs as")


def test_one_that_does_not_is_refused_before_its_data(hub: StandIn, pull, tmp_path: Path) -> None:
    changes = family_gguf.renamed("qwen3moe", "nonsense")
    hub.add("org/other-GGUF", {"other.F16.gguf": file_of(tmp_path, "qwen3moe", changes)})
    done = pull("org/other-GGUF")
    assert done.returncode == 5
    assert "llama.cpp cannot load other.F16.gguf: unknown model architecture: 'nonsense'" in done.stderr
