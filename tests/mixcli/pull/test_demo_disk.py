"""The demo's disk space: checked before anything is written."""

import shutil
from pathlib import Path

import pytest

from mixcli.errors import DoesNotFit
from mixcli.pull.local_build import DEMO_BYTES, DENSE_BYTES, demo
from mixcli.store.catalog import catalog
from mixcli.store.store import find
from mixcli.system import paths


@pytest.mark.parametrize("quant", DEMO_BYTES)
def test_a_disk_that_is_too_small_is_refused_at_once(
    home: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    little = shutil.disk_usage(home.parent)._replace(free=DENSE_BYTES + DEMO_BYTES[quant] - 1)
    monkeypatch.setattr("mixcli.pull.pull_plan.shutil.disk_usage", lambda _path: little)
    seen: list[str] = []
    with pytest.raises(DoesNotFit, match="free some space"):
        demo(catalog()["demo"], quant, lambda _done, _total, stage="": seen.append(stage))
    assert (seen, [*paths.models_dir().rglob("*")]) == ([], [])


@pytest.mark.model
def test_the_demo_is_not_larger_than_is_checked(with_demo: Path) -> None:
    assert 0.95 * DEMO_BYTES["Q4_K_M"] < find("demo").path.stat().st_size <= DEMO_BYTES["Q4_K_M"]
