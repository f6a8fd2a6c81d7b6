"""Draw size against quality with characters: a point for each model, with its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from mixcli.system.formatting import format_bytes

WIDTH, HEIGHT = 64, 12


@dataclass(frozen=True)
class PlottedModel:
    """A name, a size in bytes, and a divergence above 0 with its standard error, None where it is not known."""

    name: str
    n_bytes: int
    divergence: float
    error: float | None = None


def drawn(models: Sequence[PlottedModel], width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """Return lines: sizes to the right, from 0 on, divergence upwards on a logarithmic scale.

    A name that would cover another goes to the nearest free line.
    """
    logs = [log10(one.divergence) for one in models]
    low, high = min(logs), max(logs)
    widest, largest = max(len(one.name) for one in models) + 2, max(one.n_bytes for one in models)
    grid = [[" "] * width for _ in range(height)]
    for one, log in sorted(zip(models, logs, strict=True), key=lambda pair: pair[0].n_bytes):
        x = round((width - widest) * one.n_bytes / largest)
        y = round((height - 1) * (high - log) / (high - low)) if high > low else height // 2
        text = f"• {one.name}"
        for line in sorted(range(height), key=lambda i: abs(i - y)):
            if not "".join(grid[line][x : x + len(text) + 1]).strip():
                grid[line][x : x + len(text)] = text
                break
    marks = {0: f"{10**high:.2g}", height - 1: f"{10**low:.2g}"}
    label = max(map(len, marks.values()))
    lines = [f"{marks.get(i, ''):>{label}} │{''.join(row).rstrip()}" for i, row in enumerate(grid)]
    end = format_bytes(largest)
    return [
        f"{'KL':>{label}}",
        *lines,
        f"{'':>{label}} └{'─' * (width - 1)}",
        f"{'':>{label}}  0{end:>{width - widest + len(end) - 1}}",
    ]
