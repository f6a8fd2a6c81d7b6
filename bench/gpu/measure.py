"""Measure the whole grid, row by row into result.json; a call that runs out of time goes on there the next time."""

import argparse
import json
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import fit
from bench.gpu import grid, models, table
from bench.gpu.build import AGAIN
from bench.gpu.cell import measure
from bench.gpu.device import device
from mixcli.planning.report import Subject
from mixcli.store.headers import header_of, shape_of
from profiles.machine import Machine


def main(options: argparse.Namespace) -> int:
    end = time.monotonic() + options.seconds
    target = options.folder / "result.json"
    asked = grid.asked(options)
    with device(options) as (machine, card):
        found = known(target, card["name"])
        n_before = len(found)
        program = options.folder / "fit"
        if not program.is_file():
            fit.build(llama_cpp(options.folder), program)
        for cell in all_cells(options, machine, asked, program):
            if cell.key in {key(row) for row in found}:
                continue
            if time.monotonic() > end and len(found) > n_before:
                print("not finished; call again")
                return AGAIN
            row = measure(cell, asked)
            print(*cell.key, row.died or f"{row.prefill} {row.decode} {row.off:.2%}", flush=True)
            found.append(json.loads(json.dumps(asdict(row))))
            # kept after every row: a call that ends early loses nothing
            target.write_text(json.dumps(as_data(card, found), indent=1) + "\n", "utf-8")
    result = json.loads(target.read_text("utf-8"))
    print("\n".join(table.table(result)))
    problems, missing = judged(table.promises(result), is_stand_in=options.stand_in)
    print("\n".join(f"not measured: {one}" for one in missing))
    holds = "ledgers hold, and nothing is missing or died" if options.stand_in else "every promise holds"
    print("\n".join(f"not as promised: {problem}" for problem in problems) or holds)
    return int(bool(problems))


def judged(promises: Iterable[table.Promise], *, is_stand_in: bool) -> tuple[list[str], list[str]]:
    """Return where promises are broken, which ends a run with 1, and which were not measured, which does not.

    Gains over others mean nothing on a stand-in, which rehearses the whole grid instead: there, what is missing is a problem. So it is of
    ledgers everywhere, as each row has one.
    """
    problems, missing = list[str](), list[str]()
    for promise in promises:
        must_be_there = is_stand_in or not promise.needs_card
        (problems if must_be_there else missing).extend(table.unmeasured(promise))
        if not (is_stand_in and promise.needs_card):
            problems += table.broken(promise)
    return problems, missing


def all_cells(
    options: argparse.Namespace, machine: Machine, asked: grid.Grid, program: Path
) -> Iterable[grid.Cell]:
    for file_type in asked.file_types:
        path = models.model(options.folder, file_type)
        subject = Subject(path.name, shape_of(header_of([path])), path)
        yield from grid.cells(subject, file_type, machine, asked, program)


def llama_cpp(folder: Path) -> Path:
    """Return the source of llama.cpp that `build` unpacked."""
    return next((folder / "source").glob("*/vendor/llama.cpp"))


def known(target: Path, card: str) -> list[dict[str, Any]]:
    """Return the rows that an earlier call measured on a card of that name."""
    if not target.is_file():
        return []
    result = json.loads(target.read_text("utf-8"))
    return list(result["rows"]) if result["card"]["name"] == card else []


def key(row: dict[str, Any]) -> tuple[str, float, int, str, str]:
    return row["file_type"], row["budget_gib"], row["n_ctx"], row["kv"], row["what"]


def as_data(card: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a result as plain data."""
    return {"measured": time.strftime("%Y-%m-%d"), "card": card, "rows": found}
