"""quantize/ against llama.cpp's own converter, by the digests that bench/check_converter.py kept of a full comparison."""

import json
from pathlib import Path
from typing import Any

import pytest

from quantize.sources.checkpoint import open_checkpoint
from quantize.sources.model_source import model_source
from tests.quantize.converter_cases import CASES, DATA, digests

KEPT: dict[str, Any] = json.loads(DATA.read_text())


def test_every_case_was_compared() -> None:
    assert KEPT.keys() == CASES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_tensors_and_metadata_are_those_of_the_converter(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for one thing: the converter takes a template by the tokenizer's version alone, also for base models."""
    monkeypatch.setattr("quantize.sources.model_source.trained_for_chat", lambda *_: True)
    model = model_source(open_checkpoint(CASES[case](tmp_path / case)))
    found = digests(model)
    assert list(found["tensors"]) == list(KEPT[case]["tensors"])
    assert found == KEPT[case]
