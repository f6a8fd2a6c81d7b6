"""What tuning found, remembered by model file, devices, library and wish."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixcli import paths
from mixcli.hardware import library_identity
from profiles.layout import layout_of
from profiles.ledger import accounts
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.request import Request
from profiles.shape import ModelShape

HEAD = 4 << 20  # bytes that tell models apart: the header, and at least some of the weights


def remember(
    path: Path, machine: Machine, request: Request, placement: Placement, rows: list[dict[str, Any]]
) -> None:
    """Keep a placement and the measurements that speak for it."""
    known = _read()
    known[_key(path, machine, request)] = {"placement": placement.to_json(), "rows": rows}
    (paths.cache_dir() / "tuned.json").write_text(json.dumps(known, indent=1), "utf-8")


def evidence(path: Path, machine: Machine, request: Request) -> list[dict[str, Any]]:
    """Give the measurements that were made for a model and wish; empty when there were none."""
    found = _read().get(_key(path, machine, request))
    return list(found["rows"]) if found else []


def tuned(path: Path, shape: ModelShape, machine: Machine, request: Request) -> Placement | None:
    """Give the placement that was found best, when it still fits into what is free now."""
    found = _read().get(_key(path, machine, request))
    if found is None:
        return None
    try:
        placement = Placement.from_json(found["placement"])
    except (TypeError, ValueError):
        return None
    ledger = accounts(shape, machine, placement, layout_of(shape, placement, machine))
    return placement if all(account.left >= 0 for account in ledger) else None


def _key(path: Path, machine: Machine, request: Request) -> str:
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    parts = [
        head,
        path.stat().st_size,
        [(gpu.name, gpu.description) for gpu in machine.gpus],
        machine.n_cores,
        library_identity(),
        asdict(request),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _read() -> dict[str, Any]:
    try:
        known = json.loads((paths.cache_dir() / "tuned.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
