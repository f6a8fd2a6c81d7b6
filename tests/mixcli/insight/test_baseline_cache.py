"""The kept distributions of a baseline are used again for the very same reading, and for no other."""

from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.insight.perplexity import PerplexityRequest, measure
from mixcli.insight.pieces import TextPiece
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import StoredModel
from mixcli.system.console import console
from profiles.request import PlanRequest
from tests.support.tiny_models import tiny_model

TEXT = TextPiece(
    "notes.txt", "prose", "The tide came in twice a day, and the bell at the end of the pier rang. " * 10
)
EXACT = LoadOptions(PlanRequest())
COARSE = replace(EXACT, request=PlanRequest(kv="q4_0"))


@pytest.mark.slow
def test_another_cache_type_is_another_baseline(home: Path, tmp_path: Path) -> None:
    small, large = (
        StoredModel(tiny_model(tmp_path / f"{name}.gguf", file_type=name)) for name in ("Q4_K_M", "F16")
    )
    request = PerplexityRequest((TEXT,), 128, 2)

    def of_baseline(options: LoadOptions) -> float:
        with console.progress("measuring") as bar:
            found = measure(small, large, request, options, bar)[0].baseline_perplexity
        assert found
        return found.value

    def alone(options: LoadOptions) -> float:
        with console.progress("measuring") as bar:
            return measure(large, None, request, options, bar)[0].perplexity.value

    coarse, exact = of_baseline(COARSE), of_baseline(EXACT)
    assert coarse != exact
    assert (coarse, exact) == pytest.approx((alone(COARSE), alone(EXACT)), rel=1e-6)
    assert len(list((home / "cache/baselines").glob("*.baseline"))) == 2
    assert of_baseline(EXACT) == exact


@pytest.mark.slow
def test_a_baseline_may_leave_the_cache_while_the_other_model_is_loaded(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process makes room for its own."""
    small, large = (
        StoredModel(tiny_model(tmp_path / f"{name}.gguf", file_type=name)) for name in ("Q4_K_M", "F16")
    )
    removed: list[Path] = []

    def remove(_done: float, _total: float, stage: str = "") -> None:
        if stage == "loading":
            for path in (home / "cache/baselines").glob("*.baseline"):
                removed.append(path)
                path.unlink()

    with console.progress("measuring") as bar:
        monkeypatch.setattr(bar, "update", remove)
        found = measure(small, large, PerplexityRequest((TEXT,), 128, 2), EXACT, bar)
    assert removed
    assert found[0].kl_mean
