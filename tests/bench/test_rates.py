"""bench.rates as it is called, on a model that takes no time."""

import sys
from pathlib import Path

import pytest

from bench import rates
from tests.support.synthetic import resized, shape_named


@pytest.mark.usefixtures("home")
@pytest.mark.slow
def test_a_type_is_predicted_and_measured_in_both_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rates, "shape_named", lambda name, n: resized(shape_named(name, n), 512, 512))
    monkeypatch.setattr(rates, "PROMPT", 32)
    monkeypatch.setattr(rates, "TOKENS", 2)
    monkeypatch.setattr(sys, "argv", ["rates", str(tmp_path / "models"), "--only", "Q4_K_S", "--times", "1"])
    assert rates.main() in (0, 1)
    one, two, summary = capsys.readouterr().out.splitlines()
    assert one.startswith("8x7b-2-Q4_K_S, repacked: prefill ")
    assert ", predicted " in two
    assert summary.endswith(" in the median of 4")
    assert list((tmp_path / "models").iterdir()) == []


def test_a_part_that_is_unknown_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rates", str(tmp_path), "--only", "Q4_K_S,400+151"])
    with pytest.raises(SystemExit, match="2"):
        rates.main()
