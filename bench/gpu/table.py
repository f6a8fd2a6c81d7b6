"""The results of a run as a table, and whether they hold what is promised of plans."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench.gpu.cell import FITS_NOT
from bench.gpu.grid import ASIDE, FIT, OURS, SMALL_BATCHES, WHOLE_LAYERS

Row = dict[str, Any]
Place = tuple[str, float, int, str]
GAIN_TYPE = "Q4_K_M"  # the file type whose gain over whole layers is promised


@dataclass(frozen=True)
class Promise:
    """What must hold of every figure in `found`, each with its place; `needs_card` says that it is about speed. With no figures it is not measured."""

    what: str
    limit: float
    found: tuple[tuple[str, float], ...]
    at_most: bool = False
    needs_card: bool = True

    def keeps(self, figure: float) -> bool:
        return figure <= self.limit if self.at_most else figure >= self.limit

    @property
    def worst(self) -> float | None:
        figures = [figure for _, figure in self.found]
        return (max if self.at_most else min)(figures, default=None)

    @property
    def verdict(self) -> str:
        if self.worst is None:
            return "not measured"
        return "kept" if self.keeps(self.worst) else "not kept"


def table(result: dict[str, Any]) -> Iterator[str]:
    """Write Markdown: the card, a row a cell, then the promises."""
    card = result["card"]
    yield f"Card: {card['name']}; {card['note']}. Budgets emulated, weights synthetic. Measured {result['measured']}."
    yield ""
    yield "| model | budget | context | KV | placement | micro-batch | prefill tok/s | decode tok/s | of the roofline | ledger off | driver |"
    yield "|---|--:|--:|---|---|--:|--:|--:|--:|--:|--:|"
    for row in result["rows"]:
        place = (
            f"{row['file_type']} | {row['budget_gib']:g} GiB | {row['n_ctx']} | {row['kv']} | {row['what']}"
        )
        if row["died"]:
            yield f"| {place} | {row['n_ubatch'] or ''} | {row['died']} | | | | |"
            continue
        driver = f"{row['driver_bytes'] / 2**30:.2f} GiB" if row["driver_bytes"] else ""
        rates = f"{row['prefill']:.1f} | {row['decode']:.1f} | {row['decode'] / row['roofline']:.0%} | {row['off']:.2%}"
        yield f"| {place} | {row['n_ubatch']} | {rates} | {driver} |"
        for n, rate in (row["batch_decode"] or {}).items():
            yield f"| | | | | {n} sequences at once | | | {rate:.1f} | | | |"
    yield ""
    yield "| promise | worst measured, each once | promised | verdict |"
    yield "|---|--:|--:|---|"
    for promise in promises(result):
        worst = "nothing" if promise.worst is None else f"{promise.worst:.3g}"
        sign = "at most" if promise.at_most else "at least"
        yield f"| {promise.what} | {worst} | {sign} {promise.limit:g} | {promise.verdict} |"


def promises(result: dict[str, Any]) -> list[Promise]:
    """Return all that is promised, with what was measured of it."""
    rows: list[Row] = result["rows"]
    ways: dict[str, dict[Place, Row]] = {}
    for row in rows:
        ways.setdefault(row["what"], {})[_place(row)] = row
    ours = ways.get(OURS, {})
    largest = max((row["budget_gib"] for row in rows), default=0)
    layers = _gains(ours, ways.get(WHOLE_LAYERS, {}), "decode")
    at_largest = [one for one in layers if one[0][:2] == (GAIN_TYPE, largest)]
    batches = {place: row for place, row in ways.get(SMALL_BATCHES, {}).items() if row["on_host"]}
    named = [(f"{_said(_place(row))} {row['what']}", row) for row in rows]
    died = [(f"{where}: {row['died']}", row["died"] not in ("", FITS_NOT)) for where, row in named]
    off = [(where, row["off"]) for where, row in named if not row["died"]]
    lacking = [
        (_said(place), sum(place not in ways.get(what, {}) for what in (WHOLE_LAYERS, ASIDE, FIT)))
        for place in ours
    ]
    refused = [
        (_said(place), _runs(ways, place) if row["died"] == FITS_NOT else 0) for place, row in ours.items()
    ]
    return [
        Promise("bytes of a device, share by which the ledger is off", 0.02, tuple(off), True, False),
        Promise("placements that died", 0, tuple(died), True, False),
        Promise("ways that are missing in a cell", 0, tuple(lacking), True, False),
        Promise("other ways that run where no plan fits", 0, tuple(refused), True, False),
        Promise(f"decode against whole layers, {GAIN_TYPE} at {largest:g} GiB", 1.3, _text(at_largest)),
        Promise("decode against whole layers", 1.0, _text(layers)),
        Promise("decode against llama.cpp's fit", 1.0, _text(_gains(ours, ways.get(FIT, {}), "decode"))),
        Promise("prefill against llama.cpp's fit", 1.0, _text(_gains(ours, ways.get(FIT, {}), "prefill"))),
        Promise(
            "prefill with experts on the host against micro-batches of 512",
            2.0,
            _text(_gains(ours, batches, "prefill")),
        ),
    ]


def unmeasured(promise: Promise) -> Iterator[str]:
    """Yield what is missing of a promise of which nothing was measured."""
    if not promise.found:
        yield f"{promise.what}: nothing was measured"


def broken(promise: Promise) -> Iterator[str]:
    """Yield where a promise does not hold."""
    for where, figure in promise.found:
        if not promise.keeps(figure):
            yield f"{where}: {promise.what} is {figure:.3g}, promised {promise.limit:g}"


def _gains(ours: dict[Place, Row], theirs: dict[Place, Row], rate: str) -> list[tuple[Place, float]]:
    """Return our rate in terms of theirs wherever theirs ran; a plan of ours that died has the rate 0."""
    return [
        (place, row[rate] / theirs[place][rate])
        for place, row in ours.items()
        if place in theirs and theirs[place][rate]
    ]


def _runs(ways: dict[str, dict[Place, Row]], place: Place) -> int:
    return sum(bool(ways.get(what, {}).get(place, {}).get("decode")) for what in (WHOLE_LAYERS, ASIDE, FIT))


def _text(gains: list[tuple[Place, float]]) -> tuple[tuple[str, float], ...]:
    return tuple((_said(place), gain) for place, gain in gains)


def _place(row: Row) -> Place:
    return row["file_type"], row["budget_gib"], row["n_ctx"], row["kv"]


def _said(place: Place) -> str:
    return f"{place[0]}, {place[1]:g} GiB, context {place[2]}, {place[3]}"
