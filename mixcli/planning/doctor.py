"""mixcli doctor: one check per line, with the next step if it fails."""

import importlib.metadata
import json
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Literal

from mixcli.planning.cpu_rates import SWITCH, failures, host_rates, is_off, known_rates
from mixcli.planning.finding import Finding
from mixcli.planning.install_checks import compiler, folders, gpu_driver, limits, program, subsystem
from mixcli.system import paths, python_child
from mixcli.system.console import console
from mixcli.system.disk_reads import random_reads
from mixcli.system.formatting import counted, format_bytes
from mixcli.system.hardware import (
    devices,
    gpu_backends,
    has_rpc,
    known_bandwidth,
    measured_bandwidth,
    memory_free,
    physical_cores,
    unused_cards,
)
from mixcli.system.nvidia import driver_cards
from mixcli.system.offline import offline_variable
from profiles.rates import ATTENTION, TypeRates
from quantize import bindings

SELFTEST_TIMEOUT = 300  # seconds: two self-tests that do not end
PATIENCE = 1.0  # seconds of one check before a note says which it is
MIN_DISK, MIN_MEMORY = 5 << 30, 2 << 30
USUAL = ("Q4_K", "Q6_K")  # types that are measured where no plan has needed any yet


def findings() -> Iterator[Finding]:
    """Run every check; none of them raises."""
    for check in CHECKS:
        try:
            with console.if_slow(f"{SLOW_CHECKS.get(check, 'looking')}...", PATIENCE):
                found = check()
            yield from [found] if isinstance(found, Finding) else found
        except Exception as error:  # one failed check must not end the others
            yield Finding(check.__name__.strip("_"), "fail", f"{error}")


def _python() -> Finding:
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < (3, 11) or sys.maxsize < 1 << 32:
        return Finding("python", "fail", f"{words}; install 64-bit Python 3.11 or later")
    return Finding("python", "ok", words)


def _bindings() -> Finding:
    try:
        version = importlib.metadata.version("llama-cpp-python")
    except importlib.metadata.PackageNotFoundError:
        return Finding("bindings", "fail", f"not installed; run `{bindings.INSTALL}`")
    if wrong := bindings.wrong_release(version):
        return Finding("bindings", "fail", wrong)
    return Finding("bindings", "ok", f"llama-cpp-python {version}")


def _backends() -> Finding:
    if note := unused_cards():
        return Finding("backends", "warn", note)
    return Finding(
        "backends", "ok", ", ".join(["cpu", *gpu_backends(), *(["rpc (workers)"] if has_rpc() else [])])
    )


def _selftest() -> Finding:
    works, note = _computes()
    return Finding(
        "self-test",
        "ok" if works and not note else "warn" if works else "fail",
        note or "llama.cpp works on this CPU",
    )


def _computes() -> tuple[bool, str]:
    """Return whether llama.cpp computes on this machine, with a note when something had to be switched off or why not."""
    code = (
        "import json\n"
        "from mixcli.llama.selftest import NOTE, checked\n"
        "from profiles.placement import Placement\n"
        "placement, _ = checked(Placement())\n"
        "print(json.dumps('' if placement.repack else NOTE))"
    )
    done = python_child.run("-c", code, seconds=SELFTEST_TIMEOUT)
    if done.succeeded:
        return True, str(json.loads(done.out))
    return False, done.last_words


def _devices() -> Finding:
    found = [device for device in devices() if device.kind != "cpu"]
    if not found:
        return Finding(
            "gpus",
            "ok",
            "no GPU that llama.cpp can use" + ("" if driver_cards() else "; models run on the CPU"),
        )
    shown = (f"{one.name} {one.description} ({format_bytes(one.bytes_free)} free)" for one in found)
    return Finding("gpus", "ok", ", ".join(shown))


def _memory() -> Finding:
    free = memory_free()
    state: Literal["ok", "warn"] = "ok" if free >= MIN_MEMORY else "warn"
    return Finding("memory", state, f"{format_bytes(free)} free, {counted(physical_cores(), 'core')}")


def _bandwidth() -> Finding:
    rate = known_bandwidth() or measured_bandwidth()
    return Finding(
        "bandwidth",
        "ok" if rate > 8 else "warn",
        f"host memory bandwidth {rate:.0f} GB/s; it limits decode speed on the CPU",
    )


def _processor() -> list[Finding]:
    """Return one line for the processor, and one for each type of weights that is known."""
    known = {one.type for one in known_rates().types} | set(failures()) - {ATTENTION}
    rates, failed = host_rates(known or USUAL, again=True), failures()
    more = "`mixcli profiles detect` measures all common types"
    if not rates.types:
        why = "; ".join(f"{name}: {reason}" for name, reason in failed.items()) or more
        words = f"its rates are not measured ({f'{SWITCH} is off' if is_off() else why}); estimates use typical ones"
        return [Finding("processor", "ok" if is_off() else "warn", words)]
    busy = "busy" in rates.origins([one.type for one in rates.types])
    found = [
        Finding(
            "processor",
            "warn" if busy else "ok",
            f"rates of {counted(len(rates.types), 'type')} measured; "
            + (
                "but other programs ran meanwhile; run `mixcli doctor` on an idle machine to measure again"
                if busy
                else more
            ),
        )
    ]
    found += (Finding(f"processor {one.type}", "ok", _words(one)) for one in rates.types)
    found += (
        Finding(f"processor {name}", "warn", f"not measured ({reason}); estimates use typical rates")
        for name, reason in failed.items()
    )
    return found


def _words(one: TypeRates) -> str:
    """Write a type's rates: decode in GB/s, prefill of a mixture of experts in TFLOP/s, and the same where it is repacked."""
    plain, repacked = (
        f"decode {rates.decode:.3g} GB/s, prefill {rates.experts[-1]:.3g} TFLOP/s" if rates else ""
        for rates in (one.plain, one.repacked)
    )
    busy = " (while other programs ran)" if one.origin == "busy" else ""
    return plain + (f"; repacked {repacked}" if repacked else "") + busy


def _disk() -> Finding:
    folder = paths.models_dir()
    free = shutil.disk_usage(folder).free
    if free < MIN_DISK:
        return Finding("disk", "warn", f"{format_bytes(free)} free for models; free some with `mixcli rm`")
    rate = random_reads(folder)
    return Finding(
        "disk",
        "ok",
        f"{format_bytes(free)} free for models, small random reads {1000 * rate:.0f} MB/s (for --from-disk)",
    )


def _store() -> Finding:
    from mixcli.store.damaged import damaged
    from mixcli.store.store import models

    folder = paths.models_dir()
    if broken := damaged():
        more = f" (and {len(broken) - 1} more, see `mixcli list`)" if len(broken) > 1 else ""
        return Finding("store", "warn", f"{broken[0].sentence}{more}")
    count = len(models())
    return Finding(
        "store",
        "ok" if count else "warn",
        f"{counted(count, 'model')} in {folder}" if count else "empty; run `mixcli pull demo`",
    )


def _network() -> Finding:
    variable = offline_variable()
    words = (
        f"offline: {variable} is set"
        if variable
        else "used by `mixcli pull`, and by `mixcli plan` for org/repo"
    )
    return Finding("network", "ok", words)


CHECKS: tuple[Callable[[], Finding | list[Finding]], ...] = (
    _python, program, _bindings, compiler, _backends, _selftest, gpu_driver, _devices, subsystem, _memory, limits, _bandwidth, _processor,
    folders, _disk, _store, _network,
)  # fmt: skip

SLOW_CHECKS: dict[Callable[[], Finding | list[Finding]], str] = {
    _selftest: "testing llama.cpp on this CPU",
    _devices: "looking for GPUs",
    _bandwidth: "measuring host memory bandwidth",
    _processor: "measuring the CPU, two or three seconds for each weight type",
    _disk: "measuring random reads of the disk",
}

__all__ = ["Finding", "findings"]
