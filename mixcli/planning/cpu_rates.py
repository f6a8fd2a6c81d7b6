"""Matrix product rates of this CPU by weight type: measured when a plan first needs them, then cached.

What is remembered belongs to the library's files, the processor and the number of threads. A type that could not be measured is
remembered as well, so that no second start pays for it; `mixcli doctor` tries these again. Where other programs took part of the processor, or
it took too long, it is measured at most twice more, half an hour apart, and the better of both counts. MIXCLI_MEASURE=off measures nothing.
"""

import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixcli.errors import MixcliError
from mixcli.system import json_cache, paths, python_child
from mixcli.system.console import console
from mixcli.system.hardware import library_identity, physical_cores, processor
from mixcli.system.locks import exclusive
from mixcli.system.measurements import ProductLine, ProductOrder
from profiles.machine import Machine
from profiles.rates import ATTENTION, BATCHES, BITS_OF_TYPE, HostRates, Origin, read_rates, write_rates
from profiles.shape import MATRICES, ModelShape
from profiles.typical import typical_rates

SWITCH, OFF = "MIXCLI_MEASURE", {"off", "0", "no", "false"}
ROWS = 14336  # of an expert, as Mixtral 8x7B has them
BYTES = 512 << 20  # of a stack of experts: more than most caches hold
TIME_LIMIT, LIMIT_TYPE = 10.0, 6.0  # seconds for the start, and for each type
# what files are usually made of: measured together in about half a minute
COMMON = ("Q2_K", "Q3_K", "IQ3_S", "IQ4_XS", "Q4_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16", "BF16")
# keys beside a type's rates: the reason, how often it was measured while other programs ran, and the last time (seconds since 1970)
FAILED, BUSY, WHEN = "failed", "busy", "when"
MAX_TRIES = 3
REST = 1800  # seconds between two tries: a busy machine does not delay one command after the other
MIN_SHARE = 0.25  # of usual rates, for what was measured beside other programs

Report = Callable[[str], None]
# what this process measured, by cache folder, processor and type: never twice, even where nothing can be written
_here: dict[tuple[Path, str], dict[str, Any]] = {}


def is_off() -> bool:
    """Return whether MIXCLI_MEASURE says that nothing is measured."""
    return os.environ.get(SWITCH, "").strip().casefold() in OFF


def known_rates() -> HostRates:
    """Return what was measured here before; empty where nothing was."""
    return _usable(_known())


def host_rates(types: Collection[str], report: Report | None = None, *, again: bool = False) -> HostRates:
    """Return the rates of all that is known, after measuring those of `types` that never were: two or three seconds each.

    `report` gets a sentence before that, and one when it fails. With `again` types are measured once more that failed, or beside other
    programs.
    """
    say = report or (lambda _: None)
    if not _missing(types, again) or is_off():
        return known_rates()
    try:
        with _alone(TIME_LIMIT + LIMIT_TYPE * len(types)):
            missing = _missing(types, again)
            if missing:
                _announce(missing, say)
                return _usable(_measure(missing, TIME_LIMIT + LIMIT_TYPE * len(missing), say))
    except (OSError, MixcliError) as error:
        why = (isinstance(error, OSError) and error.strerror) or error
        say(f"this CPU was not measured ({why}); estimates use typical rates")
    return known_rates()


def _announce(missing: list[str], say: Report) -> None:
    """Report the types that are measured now, apart from those that are measured again because other programs ran."""
    known = _known()
    again = [name for name in missing if _tries(known.get(name, {}))]
    if first := [name for name in missing if name not in again]:
        say(
            f"measuring this CPU once for planning, two or three seconds for each weight type: {', '.join(first)}"
        )
    if again:
        say(f"measuring this CPU again, because other programs ran the last time: {', '.join(again)}")


@contextmanager
def _alone(seconds: float) -> Iterator[None]:
    """Wait until no other process measures: two at a time would measure each other. Where no lock can be made, continue without."""
    with ExitStack() as stack:
        with suppress(OSError):
            lock = paths.cache_dir() / "rates.measuring"
            stack.enter_context(exclusive(lock, seconds=seconds, what="measuring this CPU"))
        yield


def with_rates(machine: Machine, shapes: Sequence[ModelShape], report: Report | None = None) -> Machine:
    """Return this machine with the rates that plans for these models need, measured where they never were.

    A model that is wholly on GPUs needs none.
    """
    room = sum(gpu.bytes_free for gpu in machine.gpus)
    types = {name for shape in shapes if shape.bytes_weights > room for name in shape.types}
    return replace(machine, rates=host_rates(types, report) if types else known_rates())


def failures() -> dict[str, str]:
    """Return the types that could not be measured, each with the reason."""
    return {name: found[FAILED] for name, found in _known().items() if FAILED in found}


def _missing(types: Collection[str], again: bool) -> list[str]:
    known, here = _known(), _here.get(_place(), {})

    def is_missing(name: str) -> bool:
        if name not in known:
            return True
        failed, tries = FAILED in known[name], _tries(known[name])
        is_due = name not in here and 0 < tries < MAX_TRIES and _has_rested(known[name])
        return is_due or (again and (failed or tries > 0))

    wanted = [name for name in BITS_OF_TYPE if name in types and name != "F32"]
    return [name for name in (*wanted, *([ATTENTION] if wanted else [])) if is_missing(name)]


def _measure(types: list[str], seconds: float, say: Report) -> dict[str, Any]:
    """Measure in a child and remember what it wrote, however it ended; returns all that is known then, also where nothing can be written."""
    order = ProductOrder(tuple(types), physical_cores(), ROWS, BYTES)
    written: list[str] = []
    with console.progress("measuring this CPU", is_still=True) as bar:

        def on_line(line: str) -> None:
            written.append(line)
            bar.update(len(written), 2 * len(types))  # two layouts of each

        bar.update(0, 2 * len(types))
        done = python_child.run(
            "-m",
            "mixcli.llama.kernel_rates",
            seconds=seconds,
            stdin=order.to_json(),
            on_line=on_line,
            in_all=True,
        )
    measured = _lines(written)
    reason = "" if done.succeeded else _reason(done)
    before = _known()
    entries: dict[str, dict[str, Any]] = {}
    for name in types:
        lines = [measured.get((name, second)) for second in (False, True)]
        entries[name] = _entry(name, lines, before.get(name, {}), reason, cut=done.timed_out)
    place, known = _place(), {**before, **entries}
    is_first = place not in _here
    _here[place] = {**_here.get(place, {}), **entries}
    if not json_cache.update("rates", lambda remembered: remembered.update({place[1]: known})) and is_first:
        say(
            f"the measured rates of this CPU cannot be saved, so every start measures again: {place[0] / 'rates.json'} cannot be written; "
            f"set MIXCLI_HOME to a folder that you can write, or {SWITCH}=off"
        )
    failed = [name for name in types if FAILED in entries[name]]
    if failed:
        say(
            f"this CPU's rates for {', '.join(failed)} could not be measured ({entries[failed[0]][FAILED]}); "
            f"estimates use typical ones; run `mixcli doctor` on an idle machine to measure again, or set {SWITCH}=off"
        )
    return known


def _entry(
    name: str, lines: list[ProductLine | None], before: dict[str, Any], reason: str, *, cut: bool
) -> dict[str, Any]:
    """Return what to remember of a type: its two `lines`, the better of them and `before` where other programs ran, or why there is none.

    What was `cut` because it took too long is measured again like what was measured beside other programs.
    """
    first, second = lines
    entry: dict[str, Any] = {}
    if name == ATTENTION and first and second:
        entry = {"plain": first.rates, "flash": second.rates}
    elif name != ATTENTION and first:
        entry = {**first.rates, **({"repacked": second.rates} if second and second.rates else {})}
    old, tried = _values(name, before), {BUSY: _tries(before) + 1, WHEN: int(time.time())}
    if not _values(name, entry):
        if old:  # better than none
            return {**before, **tried}
        return {FAILED: reason or "not supported by llama.cpp", **(tried if cut else {})}
    if any(line.busy if line else cut for line in lines):
        entry = {**(_better(old, entry) if old else entry), **tried}
    return entry


def _better(one: Any, other: Any) -> Any:
    """Return the higher of two measurements, rate by rate: other programs make a product slower, never faster."""
    if one is None or other is None:  # a layout that was not measured both times
        return one if other is None else other
    if isinstance(one, dict):
        return {key: _better(one.get(key), other.get(key)) for key in {**one, **other}}
    if isinstance(one, list):
        return [_better(*pair) for pair in zip(one, other, strict=True)]
    return max(one, other)


def _reason(done: python_child.ChildResult) -> str:
    if done.timed_out:
        return "timed out"
    return f"killed by signal {-done.code}" if done.code < 0 else done.last_words


def _lines(lines: Iterable[str]) -> dict[tuple[str, bool], ProductLine]:
    """Read the lines that a child wrote whole, by type and whether it is the second layout of it."""
    found: dict[tuple[str, bool], ProductLine] = {}
    for line in lines:
        with suppress(ValueError, TypeError):  # a line that was cut
            one = ProductLine.from_json(line)
            found[one.type, one.second] = one
    return found


def _tries(found: dict[str, Any]) -> int:
    tries = found.get(BUSY)
    return max(0, tries) if type(tries) is int else 0


def _has_rested(found: dict[str, Any]) -> bool:
    """Return whether the last try is long enough ago; a clock that was set back counts as such."""
    when = found.get(WHEN)
    return type(when) is not int or not 0 <= time.time() - when < REST


def _values(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return the rates of an entry; nothing for one that has none, or none that are sound."""
    values = {key: value for key, value in found.items() if key not in (BUSY, WHEN)}
    try:
        read_rates({name: values}, "measured")
    except ValueError:
        return {}
    return values


def _usable(table: dict[str, Any]) -> HostRates:
    """Return the rates of what is known; what failed is as if it were not there."""
    rates = HostRates()
    for name, found in table.items():
        if values := _values(name, found):
            origin: Origin = "busy" if _tries(found) else "measured"
            if origin == "busy":
                values = _better(values, {key: one for key, one in _least(name).items() if key in values})
            rates = rates.over(read_rates({name: values}, origin))
    return rates


def _least(name: str) -> dict[str, Any]:
    """Return rates below which other programs were measured rather than this processor: a share of the usual ones."""
    usual = typical_rates("avx2").scaled(MIN_SHARE * physical_cores(), math.inf)
    return write_rates(usual).get(name, {})


def _known() -> dict[str, Any]:
    """Return what is remembered, each type with sound rates or the reason why it has none, and what only this process knows."""
    place = _place()
    found = json_cache.load("rates").get(place[1])
    remembered = found if isinstance(found, dict) else {}
    sound = {name: one for name, one in remembered.items() if isinstance(one, dict) and _is_sound(name, one)}
    return {**_here.get(place, {}), **sound}


def _is_sound(name: str, found: dict[str, Any]) -> bool:
    has_reason = isinstance(found.get(FAILED), str) and name in (*BITS_OF_TYPE, ATTENTION)
    return has_reason or bool(_values(name, found))


def _place() -> tuple[Path, str]:
    return next(paths.roots()), _key()


def _key() -> str:
    """Name this library on this processor with this many threads, and what is measured: anything else is measured again."""
    model, flags = processor()
    parts = [platform.machine(), model, flags, physical_cores(), library_identity(), BATCHES, BYTES, MATRICES]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


__all__ = ["COMMON", "SWITCH", "failures", "host_rates", "is_off", "known_rates", "with_rates"]
