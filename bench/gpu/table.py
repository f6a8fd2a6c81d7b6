"""The results of a run as a table, and whether they hold what is promised of plans."""

from collections.abc import Iterator
from typing import Any

MOST_OFF = 0.02
WHOLE_LAYERS_AT_24 = 1.3  # how much faster our plan must write at 24 GiB and Q4_K_M


def table(result: dict[str, Any]) -> Iterator[str]:
    """Write Markdown: the card, then a row a cell."""
    card = result["card"]
    yield f"Card: {card['name']}; {card['note']}. Budgets emulated, weights synthetic. Measured {result['measured']}."
    yield ""
    yield "| model | budget | context | KV | placement | reads/s | writes/s | ledger off | driver |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in result["rows"]:
        driver = f"{row['driver_bytes'] / 2**30:.2f} GiB" if row["driver_bytes"] else ""
        rates = f"{row['prefill']:.1f} | {row['decode']:.1f} | {100 * row['off']:.2f} %"
        rest = row["died"] or f"{rates} | {driver}"
        yield (
            f"| {row['file_type']} | {row['budget_gib']:g} GiB | {row['n_ctx']} | {row['kv']} | {row['what']} | {rest} |"
        )
        for n, rate in (row["batch_decode"] or {}).items():
            yield f"| | | | | {n} sequences at once | | {rate:.1f} | | |"


def broken(result: dict[str, Any]) -> Iterator[str]:
    """Say which promises do not hold: a ledger more than 2 % off, a plan that died, too small a gain over whole layers."""
    layers = {
        _cell(row): row["decode"]
        for row in result["rows"]
        if row["what"] == "whole layers" and not row["died"]
    }
    for row in result["rows"]:
        if row["died"]:
            yield f"{_cell(row)} {row['what']}: {row['died']}"
        elif row["off"] > MOST_OFF:
            yield f"{_cell(row)} {row['what']}: the ledger is {100 * row['off']:.1f} % off"
        if row["what"] != "our plan" or not layers.get(_cell(row)):
            continue
        gain = row["decode"] / layers[_cell(row)]
        least = WHOLE_LAYERS_AT_24 if (row["file_type"], row["budget_gib"]) == ("Q4_K_M", 24) else 1.0
        if gain < least:
            yield f"{_cell(row)}: {gain:.2f}x of whole layers, {least} were promised"


def _cell(row: dict[str, Any]) -> tuple[str, float, int, str]:
    return row["file_type"], row["budget_gib"], row["n_ctx"], row["kv"]
