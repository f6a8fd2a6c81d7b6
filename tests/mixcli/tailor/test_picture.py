"""The picture of loss against size: every standard file by name, the line below them, the limit."""

from xml.etree import ElementTree

from mixcli.tailor.picture import LossPicture, LossPoint, drawn, svg

STANDARD = [LossPoint("Q2_K", 17 << 30, 2.0), LossPoint("Q3_K_S", 20 << 30, 1.0), LossPoint("Q3_K_M", 21 << 30, 0.9), LossPoint("Q8_<0", 46 << 30, 0.001)]  # fmt: skip
TAILORED = [LossPoint("", (16 + i) << 30, 2.0 * 0.77**i) for i in range(30)]
PICTURE = LossPicture(STANDARD, TAILORED, 22 << 30)


def test_a_terminal_shows_all_names_and_the_wall() -> None:
    lines = drawn(PICTURE, width=60, height=10)
    assert max(map(len, lines)) <= 66
    text = "\n".join(lines[1:])
    assert all(f"• {one.name}" in text for one in STANDARD)
    assert text.count("┊") >= 5
    assert text.count("·") > 5
    assert lines[1].startswith("│"), "the largest loss is at the top"
    assert "Q2_K" in lines[1] + lines[2]
    assert "Q8_<0" in lines[-3]


def test_the_svg_is_a_document_with_the_same() -> None:
    root = ElementTree.fromstring(svg(PICTURE, "a <model>"))
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Q2_K", "Q3_K_S", "Q3_K_M", "Q8_<0", "tailored", "a <model>"} <= set(texts)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 4
    places = [(one.get("x"), one.get("y")) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(set(places)) == len(places), "no two names in one place"


def test_one_loss_alone_can_be_drawn() -> None:
    one = LossPicture(STANDARD[:1], TAILORED[:1], 17 << 30)
    assert "Q2_K" in "".join(drawn(one))
    ElementTree.fromstring(svg(one, "one"))
