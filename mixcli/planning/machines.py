"""Resolve the machine of a plan: this one as it is now, a profile, or either with other memory limits."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from mixcli.errors import UsageError
from mixcli.planning.load_options import LoadOptions
from mixcli.pull.quant_choice import Target
from mixcli.system import paths
from mixcli.system.console import console
from mixcli.system.text import clean, did_you_mean
from profiles.aliases import APPLE, is_apple, like
from profiles.errors import UnknownProfile
from profiles.machine import Machine, MemoryBudget
from profiles.memory import GIB
from profiles.profile import Profile
from profiles.profile_files import load_profile, profile_names
from profiles.request import Rule
from profiles.shape import ModelShape


def own_profiles() -> Path:
    """Return the folder of a person's own profiles; it need not exist."""
    return paths.config_dir() / "profiles"


def machine_of(
    profile: str | None,
    vram: int | None = None,
    ram: int | None = None,
    workers: Sequence[str] = (),
    disk_of: Path | None = None,
    shapes: Sequence[ModelShape] = (),
) -> Machine:
    """Return the machine of a profile, or this one for None and "auto".

    `vram` (of each GPU) and `ram` are bytes that take its budgets' place. With `disk_of`, small random reads are measured on the disk
    of that file, on this machine only, and the processor with the types of weights that `shapes` have where it computes with them.
    """
    if profile in (None, "auto"):
        from mixcli.system.disk_reads import random_reads
        from mixcli.system.hardware import this_machine

        machine = this_machine(workers)
        if disk_of is not None:
            machine = replace(machine, disk=random_reads(disk_of))
    else:
        machine = profile_of(str(profile)).machine()
    if vram is not None:
        machine = replace(machine, gpus=tuple(replace(gpu, bytes_free=vram) for gpu in machine.gpus))
    if ram is not None:
        machine = replace(machine, bytes_free=ram, memory_setting="")  # a limit that was asked for
    machine = replace(machine, budget=_budget(machine, profile, vram, ram))
    if profile in (None, "auto"):
        from mixcli.planning.cpu_rates import with_rates

        machine = with_rates(machine, shapes, console.note)
    return machine


def _budget(machine: Machine, profile: str | None, vram: int | None, ram: int | None) -> MemoryBudget | None:
    """Return what decides about the memory of a machine in place of what is free here; None where nothing does."""
    options = ["--vram"] if vram is not None and machine.gpus else []
    options += ["--ram"] if ram is not None else []
    if options:
        return MemoryBudget(f"a higher {' or '.join(options)}", " and ".join(options))
    if profile in (None, "auto"):
        return None
    return MemoryBudget(f"a profile with more memory than {profile} (`mixcli profiles list`)")


def limited(machine: Machine, limits: Mapping[str, int]) -> Machine:
    """Return a machine of which at most these bytes of each device may be filled ("host", "CUDA0"); one that is not named has no limit."""

    def least(device: str, bytes_free: int) -> int:
        return max(0, min(bytes_free, limits.get(device, bytes_free)))

    gpus = tuple(replace(gpu, bytes_free=least(gpu.name, gpu.bytes_free)) for gpu in machine.gpus)
    return replace(machine, bytes_free=least("host", machine.bytes_free), gpus=gpus)


def check_devices(devices: Iterable[str], load_options: LoadOptions, estimate: str = "") -> None:
    """Raise UsageError where a plan for a named profile uses devices that this machine does not have: llama.cpp would take the CPU without a word.

    `devices` are llama.cpp's names. `estimate` is the option that estimates without them, for a command that has one; else `mixcli plan` does.
    """
    profile = load_options.profile
    if absent := absent_device(devices, profile, load_options.workers):
        raise UsageError(
            f"--profile {profile} plans with {absent}, which this machine does not have; remove --profile, "
            f"or estimate with {estimate or f'`mixcli plan --profile {profile}`'}"
        )


def absent_device(devices: Iterable[str], profile: str | None, workers: Sequence[str] = ()) -> str | None:
    """Return the first of a named profile's `devices` that this machine does not have, as people call it; None where it has all."""
    if profile is None or profile == "auto":
        return None
    from mixcli.system.hardware import this_machine

    here = {"host", *(gpu.name for gpu in this_machine(workers).gpus)}
    absent = next((name for name in devices if name not in here), None)
    cards = {gpu.name: gpu.description for gpu in profile_of(profile).machine().gpus} if absent else {}
    return cards.get(absent or "") or absent


def target_of(load_options: LoadOptions, rule: Rule | None = None, *, measure: bool = True) -> Target:
    """Return what a file is chosen for. Without `measure` the processor is not measured: the rates that are known are used."""
    where = (load_options.profile, load_options.vram, load_options.ram, load_options.workers)
    target = Target(
        lambda shapes: machine_of(*where, shapes=shapes),
        load_options.request,
        rule or Rule(),
        rule is not None,
        load_options.where,
        load_options.options,
    )
    return target if measure else target.settled({})


def note_unused_cards(load_options: LoadOptions) -> None:
    """Note an NVIDIA GPU that this build of llama.cpp cannot use, with the command that installs one that can; at most once a day."""
    if load_options.profile not in (None, "auto"):
        return
    from mixcli.system.hardware import unused_cards_today

    if note := unused_cards_today():
        console.note(note)


def profile_of(name: str) -> Profile:
    """Read a profile by name; UsageError with the nearest name for one that does not exist."""
    try:
        profile = load_profile(name, own_profiles())
        _note_nearest(name)
        return profile
    except UnknownProfile as error:
        near = like(error.name, error.names)  # never another card or size of memory
        typed = near[0] if len(near) == 1 else error.name
        hint = did_you_mean(typed, near, f"profiles are {', '.join(error.names)}")
        raise UsageError(f"profile {clean(error.name)!r} not found; {hint}") from None


@cache
def _note_nearest(name: str) -> None:
    """Print, once per process, that a profile stands for a kind of computer, not for this very one."""
    if name != APPLE and is_apple(name) and name not in profile_names(own_profiles()):
        console.note(
            f"profile {clean(name)}: the nearest is {APPLE}, with 64 GB; `mixcli profiles new NAME --extends {APPLE}` makes your own"
        )


def detected_profile() -> str:
    """Measure this machine and return it as the text of a profile."""
    from mixcli.planning.cpu_rates import COMMON, SWITCH, host_rates, is_off
    from mixcli.system.hardware import measured_bandwidth, this_machine
    from profiles.rates import write_rates

    found = host_rates(COMMON, console.note, again=True)
    # memory that gives a product so much reads at least as fast
    rate = max(
        round(measured_bandwidth(), 1), *(layout.decode for one in found.types for layout in one.layouts), 0.0
    )
    rates = write_rates(found)
    machine = this_machine()
    description = "This machine, measured"
    if not rates:
        description = "This machine; its CPU was not measured"
        if is_off():
            console.note(
                f"the CPU was not measured, because {SWITCH} is off; the profile has no rates by type"
            )
    elif is_off():
        console.note(f"{SWITCH} is off: using earlier measurements of the CPU")
    lines = [
        f'description = "{description}"',
        f"unified = {str(machine.unified).lower()}",
        "",
        "[host]",
        f"ram_gib = {_gib(machine.bytes_free)}  # free when it was measured",
        "reserve_gib = 0",
        f"cores = {machine.n_cores}",
        f"bandwidth_gbs = {rate}",
    ]
    if rates:
        lines += [
            "",
            "# decode: GB/s of weights; experts and dense: TFLOP/s of experts and of one matrix at 16, 64 and 512 tokens",
        ]
    if busy := [name for name in rates if "busy" in found.origins([name])]:
        lines.append(f"# measured while other programs ran, perhaps too low: {', '.join(busy)}")
    for name, values in rates.items():
        repacked = values.pop("repacked", None)
        lines += ["", f"[host.rates.{name}]", *_keys(values)]
        if isinstance(repacked, dict):
            lines += [f"[host.rates.{name}.repacked]", *_keys(repacked)]
    for gpu in machine.gpus:
        lines += [
            "",
            "[[gpu]]",
            f"match = {json.dumps(gpu.description, ensure_ascii=False)}",
            f'kind = "{gpu.kind}"',
            f"vram_gib = {_gib(gpu.bytes_free)}  # free when it was measured",
            "reserve_gib = 0",
            f"bandwidth_gbs = {gpu.bandwidth}",
            f"link_gbs = {gpu.link}",
            f"tflops = {gpu.tflops}",
        ]
    return "\n".join(lines) + "\n"


def _gib(n_bytes: int) -> str:
    """Return GiB for a profile, rounded down: more is not there."""
    return f"{n_bytes * 100 // GIB / 100:.2f}"


def _keys(values: Mapping[str, object]) -> Iterator[str]:
    return (f"{key} = {value}" for key, value in values.items())
