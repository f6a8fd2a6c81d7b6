"""Cached tuning results by model file, devices, library and load options."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from mixcli.system import json_cache
from mixcli.system.hardware import library_identity, processor
from profiles.layout import layout_of
from profiles.ledger import accounts, shortage
from profiles.machine import Machine
from profiles.placement import Placement
from profiles.request import PlanRequest
from profiles.shape import ModelShape

MAX_COUNT = 1 << 31
LOAD_MODES = ("mmap", "mlock", "none")
ELSEWHERE = ("least_ctx", "on_gpus")  # of a request: what is remembered is held against them when it is read
HEAD = 4 << 20  # bytes that tell models apart: the header, and at least some of the weights


@dataclass(frozen=True)
class TuningRow:
    """A measurement as it is remembered and shown: tokens per second; an estimate is not `measured`."""

    what: str
    prefill: float
    decode: float
    measured: bool


def remember(
    path: Path, machine: Machine, request: PlanRequest, placement: Placement, rows: Sequence[TuningRow]
) -> None:
    """Save a placement and the measurements behind it."""
    found = {"placement": placement.to_json(), "rows": [asdict(row) for row in rows]}
    key = _key(path, machine, request)
    json_cache.update("tuned", lambda known: known.update({key: found}))


def evidence(path: Path, machine: Machine, request: PlanRequest) -> list[TuningRow]:
    """Return the measurements that were made for a model and its options; empty when there were none."""
    rows = _known(path, machine, request).get("rows")
    rows = rows if isinstance(rows, list) else []
    names = [field.name for field in fields(TuningRow)]
    return [TuningRow(**{name: row[name] for name in names}) for row in rows if _is_row(row)]


def tuned(path: Path, shape: ModelShape, machine: Machine, request: PlanRequest) -> Placement | None:
    """Return the best measured placement, if it still fits in free memory."""
    try:
        placement = Placement.from_json(_known(path, machine, request)["placement"])
        if not _can_be(placement) or placement.n_ctx < request.least_ctx or request.on_gpus:
            return None
        ledger = accounts(shape, machine, placement, layout_of(shape, placement, machine))
    except (
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        ArithmeticError,
    ):  # no placement, or none that can be
        return None
    return placement if shortage(ledger, machine) is None else None


def _key(path: Path, machine: Machine, request: PlanRequest) -> str:
    with path.open("rb") as file:
        head = hashlib.sha256(file.read(HEAD)).hexdigest()
    parts = [
        head,
        path.stat().st_size,
        [(gpu.name, gpu.description) for gpu in machine.gpus],
        machine.n_cores,
        processor(),
        library_identity(),
        {name: value for name, value in asdict(request).items() if name not in ELSEWHERE},
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _known(path: Path, machine: Machine, request: PlanRequest) -> dict[str, Any]:
    """Return what is remembered of a model and its options."""
    found = json_cache.load("tuned").get(_key(path, machine, request))
    return found if isinstance(found, dict) else {}


def _can_be(placement: Placement) -> bool:
    """Return whether every field of a remembered placement has the type and a size that one can have."""
    values = vars(placement)
    counts = [values[field.name] for field in fields(Placement) if field.type is int]
    switches = [values[field.name] for field in fields(Placement) if field.type is bool]
    return (
        all(type(count) is int and 0 <= count < MAX_COUNT for count in counts)
        and all(type(switch) is bool for switch in switches)
        and min(placement.n_ctx, placement.n_batch, placement.n_ubatch, placement.n_seq_max) > 0
        and min(placement.n_threads, placement.n_threads_batch) > 0
        and placement.load_mode in LOAD_MODES
        and all(json_cache.is_number(share) for share in placement.tensor_split)
        and all(isinstance(word, str) for pair in placement.tensor_overrides for word in pair)
        and all(isinstance(worker, str) for worker in placement.workers)
    )


def _is_row(row: object) -> bool:
    """Return whether a remembered measurement has what tuning shows of it."""
    return (
        isinstance(row, dict)
        and isinstance(row.get("what"), str)
        and isinstance(row.get("measured"), bool)
        and all(json_cache.is_number(row.get(rate)) for rate in ("prefill", "decode"))
    )
