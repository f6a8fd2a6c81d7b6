"""How fast this processor multiplies with each type of weights: measured when a plan first needs it, then remembered.

What is remembered belongs to the library's files, the processor and the number of threads. A type that could not be measured is
remembered as well, so that no second start pays for it; `mixcli doctor` tries these again. MIXCLI_MEASURE=off measures nothing.
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
from profiles.rates import BITS_OF_TYPE, HostRates, ProductRates, TypeRates, read_rates, write_rates
from profiles.shape import ModelShape

SWITCH = "MIXCLI_MEASURE"
BYTES = 64 << 20  # of eight experts: more than a cache holds
TIME_LIMIT, LIMIT_TYPE = 10.0, 2.5  # seconds for the start, and for each type
# what files are usually made of: measured together in about six seconds of two cores
COMMON = ("Q2_K", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16")
CPU_INFO = Path("/proc/cpuinfo")
FAILED, BUSY = "failed", "busy"  # keys beside a type's rates

Report = Callable[[str], None]


def known_rates() -> HostRates:
    """Return what was measured here before; empty where nothing was."""
    rates = {}
    for name, found in _known().items():
        if isinstance(found, dict) and FAILED not in found:
            rates[name] = {key: value for key, value in found.items() if key != BUSY}
    return _read(rates)


def host_rates(types: Collection[str], report: Report | None = None, *, again: bool = False) -> HostRates:
    """Return the rates of all that is known, after measuring those of `types` that never were: about half a second each.

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
                say(f"measuring this processor once with weights of type {', '.join(missing)}")
                _measure(missing, TIME_LIMIT + LIMIT_TYPE * len(missing), say)
    except (OSError, MixcliError) as error:
        say(f"this processor's rates were not measured ({error}); estimates use usual ones")
    return known_rates()


def with_rates(machine: Machine, shapes: Sequence[ModelShape], report: Report | None = None) -> Machine:
    """Return this machine with the rates that plans for these models need, measured where they never were.

    A model that lies wholly on GPUs needs none.
    """
    room = 0 if machine.unified else sum(gpu.bytes_free for gpu in machine.gpus)
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
        return not isinstance(found, dict) or (again and bool(found.get(FAILED) or found.get(BUSY)))

    return [name for name in BITS_OF_TYPE if name in types and name != "F32" and is_missing(name)]


def _measure(types: list[str], seconds: float, say: Report) -> None:
    """Measure in a child and remember what it wrote, however it ended."""
    order = {"types": types, "threads": physical_cores(), "bytes": BYTES}
    done = python_child.run("-m", "mixcli.engine.products", seconds=seconds, stdin=json.dumps(order))
    found = _rates_in(done.out)
    reason = "" if done.succeeded else _reason(done)
    entries: dict[str, dict[str, Any]] = {}
    for name in types:
        plain, repacked = found.get((name, False)), found.get((name, True))
        if plain is None or plain[0] is None:
            entries[name] = {FAILED: reason or "llama.cpp does not multiply with it"}
        else:
            rates = TypeRates(name, plain[0], repacked[0] if repacked else None)
            entries[name] = {
                **write_rates(HostRates((rates,)))[name],
                BUSY: plain[1] or bool(repacked and repacked[1]),
            }
    key = _key()
    json_cache.update("rates", lambda known: known.setdefault(key, {}).update(entries))
    failed = [name for name in types if FAILED in entries[name]]
    if failed:
        say(
            f"this processor's rates for {', '.join(failed)} could not be measured ({entries[failed[0]][FAILED]}); "
            "estimates use usual ones, `mixcli doctor` tries again"
        )


def _reason(done: python_child.Done) -> str:
    if done.timed_out:
        return "it did not end in time"
    return f"killed by signal {-done.code}" if done.code < 0 else done.last_words


def _rates_in(text: str) -> dict[tuple[str, bool], tuple[ProductRates | None, bool]]:
    """Read the lines that a child wrote whole: by type and whether repacked, the rates and whether other programs ran."""
    found: dict[tuple[str, bool], tuple[ProductRates | None, bool]] = {}
    for line in text.splitlines():
        try:
            one = json.loads(line)
        except ValueError:
            continue
        rates = one["rates"]
        product = (
            None if rates is None else ProductRates(rates[0], (rates[1], rates[2]), (rates[3], rates[4]))
        )
        found[one["type"], one["repacked"]] = product, one["busy"]
    return found


def _read(table: dict[str, Any]) -> HostRates:
    """Read remembered rates; what is not sound is as if it were not there."""
    types: list[TypeRates] = []
    for name, values in table.items():
        try:
            types += read_rates({name: values}, "measured").types
        except ValueError:
            continue
    return HostRates(tuple(types))


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
