"""SVG files: where one may be written, and size against quality drawn by matplotlib, which the extra `plots` installs."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from mixcli.errors import MixcliError, UsageError
from mixcli.insight.picture import PlottedModel
from quantize.output_target import output_target, refuse_foreign

GB = 10**9
INK, BLUE, GRID = "#1f2933", "#1f5fa8", "#d5dae0"


def _has_svg(beginning: bytes) -> bool:
    return b"<svg" in beginning


def svg_target(
    path: Path, is_own: Callable[[bytes], bool] = _has_svg, what: str = "is not an SVG file"
) -> Path:
    """Return the file of a picture, checked before any work; BadTarget where a picture cannot be written, or would replace something else."""
    target = output_target(path, stdout="a picture cannot be written to {}; pass a file")
    refuse_foreign(target, is_own, what)
    return target


def check_svg(path: Path) -> None:
    """Raise MixcliError where matplotlib is missing, BadTarget where the path is something else than an SVG file."""
    if find_spec("matplotlib") is None:
        raise MixcliError(
            "--svg needs matplotlib, which is not installed; run pip install '.[plots]' in mixcli's repository"
        )
    svg_target(path)


def write_svg(path: Path, models: Sequence[PlottedModel]) -> None:
    """Write the picture whole or not at all: sizes in GB from 0 on, divergence with its standard error on a logarithmic scale.

    The same models give the same bytes. UsageError where no model can be drawn.
    """
    if not models:
        raise UsageError("there is no divergence above 0 to draw; compare with a larger file")
    from mixcli.system.json_cache import replace_bytes

    replace_bytes(path, _drawn(models))


def _drawn(models: Sequence[PlottedModel]) -> bytes:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    sizes = [one.n_bytes / GB for one in models]
    with rc_context({"svg.hashsalt": "mixcli", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        for one, size in zip(models, sizes, strict=True):
            low = min(
                one.error or 0, 0.9 * one.divergence
            )  # a bar that reaches zero has no end on this scale
            axes.errorbar(size, one.divergence, [[low], [one.error or 0]], fmt="o", color=BLUE, capsize=3)
            axes.annotate(
                one.name, (size, one.divergence), (7, 5), textcoords="offset points", color=INK, fontsize=10
            )
        axes.set_yscale("log")
        axes.set_xlim(0, 1.25 * max(sizes))
        axes.set_xlabel("file size (GB)")
        axes.set_ylabel("KL divergence from the largest file (nats per token)")
        axes.grid(True, which="major", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        file = BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "mixcli"})
    return file.getvalue()
