"""Draw predicted loss against bytes: standard files as points, tailored ones as a line, the limit as a wall; for a terminal and as SVG."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import floor, log10

from mixcli.system.formatting import format_bytes

WIDTH, HEIGHT = 72, 14  # characters
SVG_WIDTH, SVG_HEIGHT, MARGIN = 720, 420, 56  # pixels
LABEL, LINE = 60, 15  # pixels of a name


@dataclass(frozen=True)
class LossPoint:
    """A file with its bytes and its predicted loss, above 0."""

    name: str
    n_bytes: int
    loss: float


@dataclass(frozen=True)
class LossPicture:
    """Standard files, tailored ones of growing sizes, and the bytes that the limit allows."""

    standard: Sequence[LossPoint]
    tailored: Sequence[LossPoint]
    limit: int

    @property
    def sizes(self) -> tuple[int, int]:
        """Return the smallest and the largest bytes of all points."""
        sizes = [one.n_bytes for one in (*self.standard, *self.tailored)]
        return min(sizes), max(*sizes, self.limit)

    @property
    def losses(self) -> tuple[float, float]:
        """Return the smallest and the largest logarithm of a loss."""
        logs = [log10(one.loss) for one in (*self.standard, *self.tailored)]
        return min(logs), max(logs)

    def place(self, n_bytes: int, loss: float) -> tuple[float, float]:
        """Return where a point is, as shares of the width and, from the top, of the height."""
        (first, last), (low, high) = self.sizes, self.losses
        return (n_bytes - first) / max(1, last - first), (high - log10(loss)) / ((high - low) or 1.0)


def drawn(picture: LossPicture, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Return lines of characters: sizes to the right, losses upwards on a logarithmic scale."""
    grid = [[" "] * width for _ in range(height)]
    longest = max(len(one.name) for one in picture.standard) + 2

    def cell(n_bytes: int, loss: float) -> tuple[int, int]:
        x, y = picture.place(n_bytes, loss)
        return round(x * (width - longest - 1)), round(y * (height - 1))

    wall = cell(picture.limit, picture.standard[0].loss)[0]
    for row in grid:
        row[wall] = "┊"
    for one in picture.tailored:
        x, y = cell(one.n_bytes, one.loss)
        grid[y][x] = "·"
    for one in sorted(picture.standard, key=lambda one: one.n_bytes):
        x, y = cell(one.n_bytes, one.loss)
        text = f"• {one.name}"
        for line in sorted(range(height), key=lambda i: abs(i - y)):
            if not "".join(grid[line][x : x + len(text) + 1]).strip(" ·┊"):
                grid[line][x : x + len(text)] = text
                break
    first, last = (format_bytes(size) for size in picture.sizes)
    return [
        "predicted loss, logarithmic   • standard   · tailored   ┊ limit",
        *(f"│{''.join(row).rstrip()}" for row in grid),
        f"└{'─' * width}",
        f" {first}{last:>{width - longest - len(first)}}",
    ]


def svg(picture: LossPicture, title: str) -> str:
    """Return the picture as an SVG document, which needs no fonts and no other files."""
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SVG_WIDTH} {SVG_HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<rect width="{SVG_WIDTH}" height="{SVG_HEIGHT}" fill="#fff"/>',
            f'<text x="{MARGIN}" y="24" font-size="15">{escape(title)}</text>',
            *_axes(picture),
            *_marks(picture),
            "</svg>\n",
        )
    )


def _spot(picture: LossPicture, n_bytes: int, loss: float) -> tuple[float, float]:
    x, y = picture.place(n_bytes, loss)
    return MARGIN + x * (SVG_WIDTH - 2.4 * MARGIN), MARGIN + y * (SVG_HEIGHT - 2 * MARGIN)


def _axes(picture: LossPicture) -> Iterator[str]:
    low, high = picture.losses
    bottom, right = SVG_HEIGHT - MARGIN + 12, SVG_WIDTH - MARGIN
    yield f'<path d="M{MARGIN - 8} {MARGIN - 12}V{bottom}H{right}" fill="none" stroke="#888"/>'
    for power in range(floor(low) + 1, floor(high) + 1):
        _, y = _spot(picture, picture.sizes[0], 10.0**power)
        yield f'<path d="M{MARGIN - 8} {y:.1f}H{right}" stroke="#eee"/><text x="4" y="{y + 4:.1f}" fill="#555">1e{power}</text>'
    for share in range(5):
        first, last = picture.sizes
        size = first + (last - first) * share // 4
        x, _ = _spot(picture, size, 10.0**low)
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle" fill="#555">{format_bytes(size)}</text>'


def _marks(picture: LossPicture) -> Iterator[str]:
    line = " ".join(
        f"{x:.1f},{y:.1f}" for x, y in (_spot(picture, one.n_bytes, one.loss) for one in picture.tailored)
    )
    yield f'<polyline points="{line}" fill="none" stroke="#d9480f" stroke-width="2"/>'
    wall, top = _spot(picture, picture.limit, 10.0 ** picture.losses[1])
    bottom = SVG_HEIGHT - MARGIN + 12
    yield f'<path d="M{wall:.1f} {top - 12:.1f}V{bottom}" stroke="#1864ab" stroke-width="3"/>'
    yield f'<text x="{wall - 6:.1f}" y="{bottom - 8}" text-anchor="end" fill="#1864ab">limit {format_bytes(picture.limit)}</text>'
    before = (0.0, 0.0)
    for one in sorted(picture.standard, key=lambda one: one.n_bytes):
        x, y = _spot(picture, one.n_bytes, one.loss)
        label = y - 6
        if x - before[0] < LABEL and abs(label - before[1]) < LINE:
            label = before[1] - LINE  # above the name beside it
        before = (x, label)
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#343a40"/><text x="{x + 8:.1f}" y="{label:.1f}">{escape(one.name)}</text>'
    last = picture.tailored[len(picture.tailored) // 3]
    x, y = _spot(picture, last.n_bytes, last.loss)
    yield f'<text x="{x - 8:.1f}" y="{y + 16:.1f}" text-anchor="end" fill="#d9480f">tailored</text>'


__all__ = ["LossPicture", "LossPoint", "drawn", "svg"]
