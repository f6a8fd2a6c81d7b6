"""The picture of compare as SVG: what stands in it, that it is the same each time, and what it needs."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mixcli.errors import MixcliError, UsageError
from mixcli.insight.picture import PlottedModel
from mixcli.insight.svg import check_svg, svg_target, write_svg
from quantize.errors import QuantizeError

MODELS = [
    PlottedModel("Q2_K", 3_000_000_000, 0.2, 0.01),
    PlottedModel("Q4_K_M", 5_000_000_000, 0.01, 0.02),
    PlottedModel("Q8_0", 9_000_000_000, 0.001),
]


@pytest.mark.slow
def test_every_model_has_a_point_and_its_name(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.svg"
    check_svg(path)
    write_svg(path, MODELS)
    first = path.read_bytes()
    texts = {
        "".join(one.itertext())
        for one in ElementTree.fromstring(first).iter("{http://www.w3.org/2000/svg}text")
    }
    assert {"Q2_K", "Q4_K_M", "Q8_0", "file size (GB)"} <= texts
    check_svg(path)
    write_svg(path, MODELS)
    assert path.read_bytes() == first
    with pytest.raises(UsageError, match="no divergence above 0"):
        write_svg(path, [])


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    notes = tmp_path / "notes.svg"
    notes.write_text("My notes.\n")
    with pytest.raises(QuantizeError, match="is not an SVG file; remove it or choose another file"):
        check_svg(notes)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    with pytest.raises(
        MixcliError, match=r"needs matplotlib, which is not installed; run pip install '\.\[plots\]'"
    ):
        check_svg(tmp_path / "picture.svg")


def test_stdout_is_no_place_for_a_picture() -> None:
    with pytest.raises(QuantizeError, match="a picture cannot be written to stdout"):
        svg_target(Path("-"))
