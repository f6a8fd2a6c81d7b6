"""Draw how much each expert of each layer is used: colored cells on a terminal, and an SVG file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log2

from mixcli.insight.expert_use import LayerUse

Cell = tuple[str, str]  # text and a style: "#101010 on #d6604d", or "" for plain text
# from a quarter of uniform use over uniform use to four times as much (ColorBrewer RdBu, which color blind people can read)
COLORS = ((0x21, 0x66, 0xAC), (0x92, 0xC5, 0xDE), (0xF7, 0xF7, 0xF7), (0xF4, 0xA5, 0x82), (0xB2, 0x18, 0x2B))
EXTREME = 2.0  # log2 of the ratio at both ends
GLYPHS = (
    (0.0, " "),
    (0.5, "·"),
    (0.8, "░"),
    (1.25, "▒"),
    (2.0, "▓"),
)  # up to this ratio; above the last a full block
FULL = "█"
NUMBER, WIDE = 6, 2  # columns of a cell with its percentage, and without
MARK = "mixcli experts"  # in every SVG file of ours


@dataclass(frozen=True)
class HeatMap:
    """Shares of uniform use: `ratios` has a row for each of `layers`, 1 where an expert gets as much as all others."""

    title: str
    layers: tuple[int, ...]
    ratios: tuple[tuple[float, ...], ...]
    drifts: tuple[float, ...] = ()

    @classmethod
    def of(cls, title: str, layers: Sequence[LayerUse], *, against: bool = False) -> "HeatMap":
        """Draw the text of a report, or the other one, which has the drifts beside it."""
        rows = [
            tuple(
                (one.share_against or 0.0 if against else one.share) * len(layer.experts)
                for one in layer.experts
            )
            for layer in layers
        ]
        drifts = tuple(layer.drift.divergence for layer in layers if layer.drift) if against else ()
        return cls(title, tuple(layer.layer for layer in layers), tuple(rows), drifts)


def color_of(ratio: float) -> str:
    """Return the color of a ratio as #rrggbb."""
    at = 0.0 if ratio <= 0 else min(1.0, max(0.0, (log2(ratio) + EXTREME) / (2 * EXTREME)))
    place = at * (len(COLORS) - 1)
    low = min(int(place), len(COLORS) - 2)
    mixed = (round(a + (b - a) * (place - low)) for a, b in zip(COLORS[low], COLORS[low + 1], strict=True))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def glyph_of(ratio: float) -> str:
    """Return a character that is the darker the more an expert is used, for terminals without colors."""
    return next((glyph for most, glyph in GLYPHS if ratio <= most), FULL)


def drawn(picture: HeatMap, width: int, *, colored: bool) -> list[list[Cell]]:
    """Return the lines of a picture at most `width` columns wide: layers from top to bottom, experts from left to right.

    Cells have their percentage where there is room. Where there are more experts than columns, a cell is the mean of neighbors.
    """
    n_expert, label = len(picture.ratios[0]), len(f"layer {max(picture.layers)} ")
    room = max(8, width - label)
    together = -(-n_expert // room)
    n_cells = -(-n_expert // together)
    cell = next((size for size in (NUMBER, WIDE) if size * n_cells <= room), 1)
    note = f"; {together} experts a column" if together > 1 else ""
    lines: list[list[Cell]] = [[(f"{picture.title}{note}", "bold")]]
    if cell == NUMBER:
        numbers = "".join(f"{i:>{NUMBER - 1}} " for i in range(n_expert))
        lines.append([(f"{'expert':<{label}}{numbers}".rstrip(), "")])
    for layer, row in zip(picture.layers, picture.ratios, strict=True):
        ratios = [_mean(row[i : i + together]) for i in range(0, n_expert, together)]
        cells = [_cell(ratio, n_expert, cell, colored=colored) for ratio in ratios]
        lines.append([(f"{f'layer {layer}':<{label}}", ""), *cells])
    return [*lines, _legend(colored=colored)]


def _cell(ratio: float, n_expert: int, width: int, *, colored: bool) -> Cell:
    number = f"{100 * ratio / n_expert:.1f} " if width == NUMBER else ""
    if not colored:
        return (f"{glyph_of(ratio)}{number:>{NUMBER - 1}}" if number else glyph_of(ratio) * width), ""
    return f"{number:>{width}}", f"{_ink(ratio)} on {color_of(ratio)}"


def _ink(ratio: float) -> str:
    """Return black or white, whichever can be read on a ratio's color."""
    return "#ffffff" if not 0.35 < ratio < 2.8 else "#101010"


def _legend(*, colored: bool) -> list[Cell]:
    marks = ((0.25, "¼"), (0.5, "½"), (1.0, "uniform use"), (2.0, "2 times"), (4.0, "4 times"))
    cells: list[Cell] = []
    for ratio, words in marks:
        sample = ("  ", f"on {color_of(ratio)}") if colored else (glyph_of(ratio), "")
        cells += [sample, (f" {words}   ", "")]
    return cells


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# of the SVG, in pixels
LEFT, TOP, GAP, BAR = 56, 64, 40, 90
MAX_WIDTH, MIN_CELL, MAX_CELL, ROW = 640, 3, 34, 16


def svg(title: str, pictures: Sequence[HeatMap]) -> str:
    """Return an SVG document: heat maps side by side, each cell with its numbers as a tooltip, and the drift of each layer."""
    n_expert, n_layer = len(pictures[0].ratios[0]), len(pictures[0].layers)
    cell = max(MIN_CELL, min(MAX_CELL, MAX_WIDTH // n_expert))
    span = cell * n_expert
    drifts = next((one.drifts for one in pictures if one.drifts), ())
    width = LEFT + len(pictures) * (span + GAP) + (BAR + GAP if drifts else 0)
    width, bottom = max(width, 560), TOP + ROW * n_layer
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{bottom + 76}" viewBox="0 0 {width} {bottom + 76}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#202020">',
        f"<!-- {MARK} -->",
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{bottom + 76}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
    ]
    parts += _rows_named(pictures[0].layers)
    for number, one in enumerate(pictures):
        parts += _panel(one, LEFT + number * (span + GAP), cell)
    if drifts:
        parts += _bars(drifts, pictures[0].layers, LEFT + len(pictures) * (span + GAP))
    return "\n".join([*parts, *_scale(bottom + 40), "</svg>", ""])


def _rows_named(layers: Sequence[int]) -> Iterator[str]:
    yield f'<text x="{LEFT - 8}" y="{TOP - 8}" text-anchor="end">layer</text>'
    for number, layer in enumerate(layers):
        yield f'<text x="{LEFT - 8}" y="{TOP + ROW * number + 12}" text-anchor="end">{layer}</text>'


def _panel(picture: HeatMap, x: int, cell: int) -> Iterator[str]:
    n_expert = len(picture.ratios[0])
    step = next(n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n * cell >= 22)
    yield f'<text x="{x}" y="{TOP - 26}" font-weight="600">{escape(picture.title)}</text>'
    for i in range(0, n_expert, step):
        yield f'<text x="{x + i * cell + cell / 2:g}" y="{TOP - 8}" text-anchor="middle">{i}</text>'
    yield '<g shape-rendering="crispEdges">'
    for row, (layer, ratios) in enumerate(zip(picture.layers, picture.ratios, strict=True)):
        for i, ratio in enumerate(ratios):
            words = f"layer {layer}, expert {i}: {100 * ratio / n_expert:.2f} %, {ratio:.2f} of uniform use"
            yield (
                f'<rect x="{x + i * cell}" y="{TOP + row * ROW}" width="{cell}" height="{ROW}" '
                f'fill="{color_of(ratio)}"><title>{words}</title></rect>'
            )
    yield "</g>"


def _bars(drifts: Sequence[float], layers: Sequence[int], x: int) -> Iterator[str]:
    most = max(*drifts, 1e-9)
    yield f'<text x="{x}" y="{TOP - 26}" font-weight="600">Drift, bits</text>'
    yield f'<text x="{x + BAR}" y="{TOP - 8}" text-anchor="end">{most:.3f}</text>'
    for row, (layer, drift) in enumerate(zip(layers, drifts, strict=True)):
        yield (
            f'<rect x="{x}" y="{TOP + row * ROW + 3}" width="{BAR * drift / most:.1f}" height="{ROW - 6}" fill="#666666">'
            f"<title>layer {layer}: {drift:.4f} bits</title></rect>"
        )


def _scale(y: int) -> Iterator[str]:
    stops = [i / (len(COLORS) - 1) for i in range(len(COLORS))]
    yield '<defs><linearGradient id="scale">'
    for stop in stops:
        yield f'<stop offset="{stop:g}" stop-color="{color_of(2 ** ((2 * stop - 1) * EXTREME))}"/>'
    yield f'</linearGradient></defs><rect x="{LEFT}" y="{y}" width="240" height="10" fill="url(#scale)"/>'
    for stop, words in zip(stops, ("¼", "½", "uniform use", "2×", "4×"), strict=True):
        yield f'<text x="{LEFT + 240 * stop:g}" y="{y + 26}" text-anchor="middle">{words}</text>'


def is_picture(beginning: bytes) -> bool:
    """Return whether a file begins as one that `svg` made."""
    return beginning.startswith(b"<svg") and MARK.encode() in beginning[:1024]
