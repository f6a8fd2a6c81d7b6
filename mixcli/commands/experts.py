"""mixcli experts: show which experts of a mixture a text activates."""

import sys
from math import log2
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.imatrix import read_pieces, show_forecast
from mixcli.commands.options import (
    BUILT_IN_TEXT,
    TEXT_FILE,
    common,
    forecast_option,
    json_option,
    model_argument,
    reading_options,
)
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mixcli.insight.expert_use import ExpertReport, ExpertShare, LayerUse
    from mixcli.planning.load_options import LoadOptions
    from mixcli.store.store import StoredModel

N_NAMED = 12  # experts whose favorite tokens are shown
N_TOKENS = 5  # favorite tokens of each
BATCH = 8  # of the sentence about speed


@click.command("experts", cls=CheckedCommand)
@model_argument
@click.option(
    "--text", "path", type=TEXT_FILE, metavar="FILE", help=f"Text to read; - is stdin. {BUILT_IN_TEXT}"
)
@click.option(
    "--against",
    type=TEXT_FILE,
    metavar="FILE",
    help="Compare with the routing of another text, layer by layer; - is stdin.",
)
@click.option(
    "--layer",
    type=click.IntRange(min=0),
    metavar="N",
    help="Show every expert of layer N: its share, the experts used with it, and its favorite tokens.",
)
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the heat map to an SVG file.",
)
@reading_options
@forecast_option
@json_option
@common
def command(
    model: str | None,
    path: Path | None,
    against: Path | None,
    layer: int | None,
    picture: Path | None,
    n_chunks: int | None,
    load_options: "LoadOptions",
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show which experts of MODEL a text activates: a heat map, entropy, pairs, favorite tokens.

    Without MODEL, the default model is used, or the only one that is installed. Every token of the text counts, in every layer with experts. The tables also show what the routing means for speed and for pruning.
    """
    from mixcli.insight.experts import RoutingRequest, layers_with_experts, observed
    from mixcli.insight.pieces import CALIBRATION, shipped
    from mixcli.planning.launch import installed

    if path is not None and path == against:
        raise UsageError("--against and --text are the same file; pass two files")
    pieces = tuple(read_pieces([path]) if path else shipped(CALIBRATION))
    others = tuple(read_pieces([against])) if against else ()
    if dry_run:
        show_forecast([(model, "routing")], (*pieces, *others), load_options, n_chunks, as_json=as_json)
        return
    target = None if picture is None else _target(picture)
    stored = installed(model, load_options.of_any_context)
    _check_layer(layers_with_experts(stored), layer)
    request = RoutingRequest(pieces, others, load_options.request.n_ctx or 0, n_chunks)
    with console.progress(f"observing the experts of {stored.label}") as bar:
        report = observed(stored, request, load_options, bar)
    _check_layer([one.layer for one in report.layers], layer)
    names = (_named(path) if path else "the built-in text", _named(against) if against else "")
    if target is not None:
        _write(target, stored.label, names, report)
    data = {"model": stored.label, "text": names[0], "against": names[1] or None, **report.to_data()}
    console.page(data, lambda: _show(stored, names, report, layer), as_json=as_json)


def _named(path: Path) -> str:
    return "stdin" if str(path) == "-" else path.name


def _target(path: Path) -> Path:
    from mixcli.insight.heat_map import is_picture
    from mixcli.insight.svg import svg_target

    return svg_target(path, is_picture, "is not a picture of mixcli experts")


def _check_layer(found: "Sequence[int]", layer: int | None) -> None:
    if layer is not None and layer not in found:
        raise UsageError(f"--layer {layer} has no experts; choose a layer from {found[0]} to {found[-1]}")


def _write(target: Path, label: str, names: tuple[str, str], report: "ExpertReport") -> None:
    from mixcli.insight.heat_map import HeatMap, svg
    from mixcli.system.json_cache import replace_text

    pictures = [HeatMap.of(names[0], report.layers)]
    if names[1]:
        pictures.append(HeatMap.of(names[1], report.layers, against=True))
    n_layers = counted(len(report.layers), "layer")
    title = f"Use of {report.n_expert} experts in {n_layers} of {Path(label).name}"
    replace_text(target, svg(title, pictures), mode=0o666)
    console.note(f"the heat map is in {target}")


def _show(stored: "StoredModel", names: tuple[str, str], report: "ExpertReport", layer: int | None) -> None:
    console.note(
        f"{stored.label}: {counted(len(report.layers), 'layer')} with {report.n_expert} experts, {report.n_expert_used} for a token; "
        f"read {counted(report.n_tokens, 'token')} of {names[0]}"
        + (f" and {counted(report.n_tokens_against, 'token')} of {names[1]}" if names[1] else "")
    )
    if layer is not None:
        _show_layer(next(one for one in report.layers if one.layer == layer))
        return
    if console.is_terminal(sys.stdout):
        _draw(names, report)
    _show_layers(report)
    console.line()
    _show_favorites(report)
    console.line()
    _show_batches(report)
    if report.pruning:
        console.line()
        _show_pruning(stored, report)


def _draw(names: tuple[str, str], report: "ExpertReport") -> None:
    from mixcli.insight.heat_map import HeatMap, drawn

    width, colored = console.width(sys.stdout), console.colored(sys.stdout)
    console.picture(drawn(HeatMap.of(names[0], report.layers), width, colored=colored))
    console.line()
    if names[1]:
        console.picture(drawn(HeatMap.of(names[1], report.layers, against=True), width, colored=colored))
        console.line()


def _show_layers(report: "ExpertReport") -> None:
    columns = ("LAYER", "ENTROPY", "MOST USED", "LEAST USED", "TOGETHER")
    more = ("DRIFT", "BY CHANCE") if report.n_tokens_against else ()
    most = f"{log2(report.n_expert):.2f}"
    console.table(
        (*columns, *more),
        [
            (
                str(layer.layer),
                f"{layer.entropy:.2f} of {most} bits",
                _expert(max(layer.experts, key=_share)),
                _expert(min(layer.experts, key=_share)),
                _closest(layer),
                *_drift(layer),
            )
            for layer in report.layers
        ],
    )
    if report.n_tokens_against and not any(one.drift and one.drift.by_chance for one in report.layers):
        console.note(
            "the texts have too few chunks to tell drift from chance; use longer texts or a smaller --ctx"
        )


def _share(one: "ExpertShare") -> float:
    return one.share


def _expert(one: "ExpertShare") -> str:
    return f"{one.expert}: {100 * one.share:.1f} %"


def _closest(layer: "LayerUse") -> str:
    """Return the two experts of a layer that most tokens chose together beyond chance."""
    pairs = [(one, one.partners[0]) for one in layer.experts if one.partners]
    if not pairs:
        return ""
    one, other = max(pairs, key=lambda pair: pair[1].n_tokens * (1 - 1 / pair[1].lift))
    return f"{one.expert} with {other.expert}: {other.lift:.1f} times chance"


def _drift(layer: "LayerUse") -> tuple[str, ...]:
    if layer.drift is None:
        return ()
    chance = layer.drift.by_chance
    return f"{layer.drift.divergence:.4f}", "" if chance is None else f"{chance:.4f}"


def _show_favorites(report: "ExpertReport") -> None:
    """Print the experts whose first favorite token comes to them most often beyond their share."""
    found = [(layer, one) for layer in report.layers for one in layer.experts if one.favorites]

    def surplus(pair: "tuple[LayerUse, ExpertShare]") -> float:
        first, share = pair[1].favorites[0], pair[1].share * report.n_expert_used
        return first.n_here - first.n_seen * share

    best = sorted(found, key=surplus, reverse=True)[:N_NAMED]
    rows = [
        (str(layer.layer), str(one.expert), f"{100 * one.share:.1f} %", _favorites(one))
        for layer, one in best
    ]
    console.table(("LAYER", "EXPERT", "SHARE", "FAVORITE TOKENS"), rows)


def _favorites(one: "ExpertShare") -> str:
    return "  ".join(f"{token.text} {token.n_here}/{token.n_seen}" for token in one.favorites[:N_TOKENS])


def _show_layer(layer: "LayerUse") -> None:
    more = ("AGAINST",) if layer.drift else ()
    rows = [
        (
            str(one.expert),
            f"{one.n_tokens:,}",
            f"{100 * one.share:.1f} %",
            *([f"{100 * (one.share_against or 0):.1f} %"] if more else []),
            ", ".join(f"{other.expert}: {other.lift:.1f}" for other in one.partners),
            _favorites(one),
        )
        for one in layer.experts
    ]
    console.table(("EXPERT", "TOKENS", "SHARE", *more, "TOGETHER WITH", "FAVORITE TOKENS"), rows)


def _show_batches(report: "ExpertReport") -> None:
    rows = [
        (str(one.n_tokens), f"{one.uniform:.1f}", f"{one.separate:.1f}", f"{one.consecutive:.1f}")
        for one in report.batches
    ]
    console.table(("BATCH", "EXPERTS IF UNIFORM", "SEPARATE REQUESTS", "ONE TEXT"), rows)
    if shown := next((one for one in report.batches if one.n_tokens == BATCH), None):
        console.note(
            f"{BATCH} requests that decode together read {shown.separate:.1f} of {report.n_expert} experts of a layer (uniform routing: "
            f"{shown.uniform:.1f}), {BATCH} consecutive tokens of one text {shown.consecutive:.1f}"
        )


def _show_pruning(stored: "StoredModel", report: "ExpertReport") -> None:
    from mixcli.insight.experts import bytes_of_experts

    n_bytes = bytes_of_experts(stored)
    rows = [
        (
            f"{one.n_kept} of {report.n_expert}",
            format_bytes(n_bytes * (1 - one.n_kept / report.n_expert)),
            f"{100 * one.choices:.1f} %",
            f"{100 * one.worst_choices:.1f} %",
            f"{100 * one.tokens:.1f} %",
        )
        for one in report.pruning
    ]
    console.table(("KEPT EXPERTS", "SMALLER BY", "CHOICES KEPT", "WORST LAYER", "TOKENS UNCHANGED"), rows)
    console.note(
        "an expert that is used little may still matter: the share of choices is not a loss of quality, which only perplexity measures"
    )
