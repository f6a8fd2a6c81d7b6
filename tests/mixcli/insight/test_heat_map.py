"""The heat map: what stands where, with and without colors, and an SVG that a parser reads."""

from xml.etree import ElementTree

import pytest

from mixcli.insight.heat_map import HeatMap, color_of, drawn, glyph_of, is_picture, svg

FEW = HeatMap("a.txt", (1, 12), ((0.0, 1.0, 3.0, 0.0), (1.0, 1.0, 1.0, 1.0)))


def text_of(picture: HeatMap, width: int, *, colored: bool = False) -> list[str]:
    return ["".join(text for text, _ in line) for line in drawn(picture, width, colored=colored)]


def test_few_experts_have_their_numbers() -> None:
    head, numbers, first, second, legend = text_of(FEW, 80)
    assert head == "a.txt"
    assert numbers.split() == ["expert", "0", "1", "2", "3"]
    assert first == "layer 1    0.0 ▒25.0 █75.0   0.0 "
    assert second == "layer 12 ▒25.0 ▒25.0 ▒25.0 ▒25.0 "
    assert "uniform use" in legend
    (_, cell, *_) = drawn(FEW, 80, colored=True)[2]
    assert cell == ("  0.0 ", "#ffffff on #2166ac")


@pytest.mark.parametrize(("n_expert", "together"), [(8, 1), (64, 1), (128, 2), (1000, 14)])
def test_many_experts_fit_the_width(n_expert: int, together: int) -> None:
    lines = text_of(HeatMap("t", (0,), ((1.0,) * n_expert,)), 80)
    assert max(map(len, lines)) <= 80
    assert lines[0] == ("t" if together == 1 else f"t; {together} experts a column")
    assert lines[-2].count("▒") >= n_expert // together


def test_colors_and_glyphs_grow_with_use() -> None:
    assert (color_of(0), color_of(1), color_of(100)) == ("#2166ac", "#f7f7f7", "#b2182b")
    assert [glyph_of(ratio) for ratio in (0, 0.3, 0.7, 1, 1.9, 5)] == [" ", "·", "░", "▒", "▓", "█"]


def test_an_svg_has_a_cell_for_each_expert_and_a_bar_for_each_drift() -> None:
    other = HeatMap("<b> & co", FEW.layers, FEW.ratios, (0.01, 0.5))
    text = svg("Use of 4 experts", [FEW, other])
    root = ElementTree.fromstring(text)
    titles = [one.text for one in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles.count("layer 1, expert 2: 75.00 %, 3.00 of uniform use") == 2
    assert titles.count("layer 12: 0.5000 bits") == 1
    assert len(titles) == 1 + 2 * 8 + 2
    assert is_picture(text.encode())
    assert not is_picture(b"<svg>mine</svg>")
