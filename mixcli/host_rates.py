"""How fast this processor multiplies with each type of weights: measured when a plan first needs it, then remembered.

What is remembered belongs to the library's files, the processor and the number of threads. A type that could not be measured is
remembered as well, so that no second start pays for it; `mixcli doctor` tries these again. Where other programs took part of the processor, the
next two starts measure once more. MIXCLI_MEASURE=off measures nothing.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixcli import json_cache, paths, python_child
from mixcli.errors import MixcliError
from mixcli.hardware import library_identity, physical_cores
from mixcli.locks import exclusive
from profiles.machine import Machine
from profiles.rates import ATTENTION, BITS_OF_TYPE, HostRates, read_rates
from profiles.shape import ModelShape

SWITCH = "MIXCLI_MEASURE"
ROWS = 14336  # of an expert, as Mixtral 8x7B has them
BYTES = 96 << 20  # of all experts: more than a cache holds
TIME_LIMIT, LIMIT_TYPE = 10.0, 2.5  # seconds for the start, and for each type
# what files are usually made of: measured together in about six seconds of two cores
COMMON = ("Q2_K", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16")
CPU_INFO = Path("/proc/cpuinfo")
FAILED, BUSY = (
    "failed",
    "busy",
)  # keys beside a type's rates; of BUSY the value is how often other programs ran
MAX_TRIES = 3

Report = Callable[[str], None]


def known_rates() -> HostRates:
    """Return what was measured here before; empty where nothing was."""
    return _usable(_known())


def host_rates(types: Collection[str], report: Report | None = None, *, again: bool = False) -> HostRates:
    """Return the rates of all that is known, after measuring those of `types` that never were: about a second each.

    `report` hears a sentence before that, and one when it fails. With `again` types are measured once more that failed, or beside other
    programs.
    """
    say = report or (lambda _: None)
    if not _missing(types, again) or os.environ.get(SWITCH) == "off":
        return known_rates()
    limit = TIME_LIMIT + LIMIT_TYPE * len(types)
    try:
        with exclusive(
            paths.cache_dir() / "rates.measuring", seconds=limit
        ):  # two at a time would measure each other
            missing = _missing(types, again)
            if missing:
                say(f"measuring this processor once, for {', '.join(missing)}")
                return _usable(_measure(missing, TIME_LIMIT + LIMIT_TYPE * len(missing), say))
    except (OSError, MixcliError) as error:
        say(f"this processor's rates were not measured ({error}); estimates use usual ones")
    return known_rates()


def with_rates(machine: Machine, shapes: Sequence[ModelShape], report: Report | None = None) -> Machine:
    """Return this machine with the rates that plans for these models need, measured where they never were.

    A model that lies wholly on GPUs needs none.
    """
    room = sum(gpu.bytes_free for gpu in machine.gpus)
    types = {name for shape in shapes if shape.bytes_weights > room for name in shape.types}
    return replace(machine, rates=host_rates(types, report) if types else known_rates())


def failures() -> dict[str, str]:
    """Return the types that could not be measured, each with the reason."""
    known = _known().items()
    return {name: str(found[FAILED]) for name, found in known if isinstance(found, dict) and FAILED in found}


def _missing(types: Collection[str], again: bool) -> list[str]:
    known = _known()

    def is_missing(name: str) -> bool:
        found = known.get(name)
        if not isinstance(found, dict):
            return True
        tries = found.get(BUSY, 0)
        return (again and bool(found.get(FAILED) or tries)) or (type(tries) is int and 0 < tries < MAX_TRIES)

    wanted = [name for name in BITS_OF_TYPE if name in types and name != "F32"]
    return [name for name in (*wanted, *([ATTENTION] if wanted else [])) if is_missing(name)]


def _measure(types: list[str], seconds: float, say: Report) -> dict[str, Any]:
    """Measure in a child and remember what it wrote, however it ended; returns all that is known then, also where nothing can be written."""
    order = {"types": types, "threads": physical_cores(), "rows": ROWS, "bytes": BYTES}
    done = python_child.run("-m", "mixcli.engine.products", seconds=seconds, stdin=json.dumps(order))
    measured = _lines(done.out)
    reason = "" if done.succeeded else _reason(done)
    entries: dict[str, dict[str, Any]] = {}
    for name in types:
        first, second = (measured.get((name, second)) for second in (False, True))
        if not first or (name == ATTENTION and not second):
            entries[name] = {FAILED: reason or "llama.cpp does not compute with it"}
        elif name == ATTENTION:
            entries[name] = {"plain": first["rates"], "flash": second["rates"] if second else None}
        else:
            repacked = {"repacked": second["rates"]} if second and second["rates"] else {}
            entries[name] = {**first["rates"], **repacked}
            if first[BUSY] or (second and second[BUSY]):
                entries[name][BUSY] = _tries(name) + 1
    key, known = _key(), {**_known(), **entries}
    json_cache.update("rates", lambda remembered: remembered.update({key: known}))
    failed = [name for name in types if FAILED in entries[name]]
    if failed:
        say(
            f"this processor's rates for {', '.join(failed)} could not be measured ({entries[failed[0]][FAILED]}); "
            "estimates use usual ones, `mixcli doctor` tries again"
        )
    return known


def _reason(done: python_child.Done) -> str:
    if done.timed_out:
        return "it did not end in time"
    return f"killed by signal {-done.code}" if done.code < 0 else done.last_words


def _lines(text: str) -> dict[tuple[str, bool], dict[str, Any]]:
    """Read the lines that a child wrote whole, by type and whether it is the second layout of it."""
    found: dict[tuple[str, bool], dict[str, Any]] = {}
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        found[one["type"], one["second"]] = one
    return found


def _tries(name: str) -> int:
    found = _known().get(name)
    tries = found.get(BUSY) if isinstance(found, dict) else 0
    return tries if type(tries) is int else 0


def _usable(table: dict[str, Any]) -> HostRates:
    """Read what is remembered; what failed, or is not sound, is as if it were not there."""
    sound: dict[str, Any] = {}
    for name, found in table.items():
        if not isinstance(found, dict) or FAILED in found:
            continue
        values = {key: value for key, value in found.items() if key != BUSY}
        try:
            read_rates({name: values}, "measured")
        except ValueError:
            continue
        sound[name] = values
    return read_rates(sound, "measured")


def _known() -> dict[str, Any]:
    found = json_cache.load("rates").get(_key())
    return found if isinstance(found, dict) else {}


def _key() -> str:
    """Name this library on this processor with this many threads."""
    try:
        lines = CPU_INFO.read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    model = next((line for line in lines if line.startswith("model name")), platform.processor())
    parts = [platform.machine(), model, flags, physical_cores(), library_identity()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


__all__ = ["COMMON", "SWITCH", "failures", "host_rates", "known_rates", "with_rates"]
