"""mixcli profiles: list, show and create hardware profiles."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import Group
from mixcli.commands.options import common, json_option
from mixcli.errors import UsageError
from mixcli.system.console import console
from mixcli.system.formatting import counted, format_bytes

if TYPE_CHECKING:
    from profiles.machine import Machine
    from profiles.rates import ProductRates

ORIGINS = {
    "measured": "measured",
    "busy": "measured while other programs ran",
    "profile": "from the profile",
    "typical": "typical",
}


@click.group("profiles", cls=Group, no_args_is_help=True)
def command() -> None:
    """List, show and create hardware profiles."""


@command.command("list")
@json_option
@common
def list_(as_json: bool) -> None:
    """List the built-in profiles and your own."""
    from profiles.profile_files import profile_names

    names = profile_names(_own())
    data = [{"name": name, "from": where} for name, where in names.items()]
    rows = ((name, _description(name), where) for name, where in names.items())
    here = ("auto", "this machine, detected now", "measured")
    console.result(data, ("name", "machine", "from"), chain([here], rows), as_json=as_json)


def _description(name: str) -> str:
    """Return the description of a profile, or what is wrong with it: one bad file does not hide the others."""
    from profiles.errors import BadProfile
    from profiles.profile_files import load_profile

    try:
        return load_profile(name, _own()).description
    except BadProfile as error:
        return f"invalid: {error}"


@command.command("show")
@click.argument("name")
@json_option
@common
def show(name: str, as_json: bool) -> None:
    """Show profile NAME; auto is this machine."""
    from mixcli.planning.machines import machine_of

    machine = machine_of(name)
    console.result(asdict(machine), ("", ""), _rows(machine), as_json=as_json)


def _rows(machine: "Machine") -> Iterator[tuple[str, str]]:
    """Yield what a machine is, for people: its facts, its GPUs, and the rates of its CPU."""
    total = machine.bytes_free + machine.bytes_reserved
    yield "memory", f"{format_bytes(machine.bytes_free)} free of {format_bytes(total)}"
    yield "memory bandwidth", f"{machine.bandwidth:.0f} GB/s, {counted(machine.channels, 'channel')}"
    yield "unified memory", "yes, the GPU shares it with the host" if machine.unified else "no"
    yield "cores", str(machine.n_cores)
    yield "disk", f"{machine.disk:g} GB/s of small random reads"
    yield "default context", f"{machine.n_ctx} tokens"
    yield "KV cache types", ", ".join(machine.kv_types)
    yield "micro-batch sizes", ", ".join(map(str, machine.ubatches))
    for gpu in machine.gpus:
        yield gpu.name, f"{gpu.description}, {format_bytes(gpu.bytes_free)} free, {gpu.bandwidth:.0f} GB/s"
    for one in machine.rates.types:
        yield f"{one.type} ({ORIGINS[one.origin]})", _rates(one.plain)
        if one.repacked:
            yield f"{one.type} repacked", _rates(one.repacked)
    if attention := machine.rates.attention:
        layouts = (("plain", attention.plain), ("flash", attention.flash))
        words = (f"{name} {one:.3g} and {many:.3g} TFLOP/s" for name, (one, many) in layouts)
        yield f"attention, 1 and 512 tokens ({ORIGINS[attention.origin]})", "; ".join(words)


def _rates(product: "ProductRates") -> str:
    """Write the rates of one type of weights in one layout: one token at a time, and a prompt through experts and through one matrix."""
    experts, dense = product.experts[-1], product.dense[-1]
    return f"decode {product.decode:.3g} GB/s, prefill {experts:.3g} TFLOP/s (experts), {dense:.3g} (dense)"


@command.command("detect")
@common
def detect() -> None:
    """Measure this machine and print it as a profile."""
    console.write(_detected())
    from mixcli.system.hardware import unused_cards

    if note := unused_cards():
        console.warn(note)


@command.command("new", short_help="Create a profile for you to edit.")
@click.argument("name")
@click.option("--extends", metavar="PROFILE", help="Start from another profile and override parts of it.")
@common
def new(name: str, extends: str | None) -> None:
    """Create profile NAME in your configuration folder, from this machine or another profile, for you to edit."""
    from mixcli.planning.machines import profile_of
    from mixcli.system.json_cache import new_text
    from mixcli.system.paths import private

    path = _own() / f"{name}.toml"
    if path.name != f"{name}.toml" or name == "auto" or not re.fullmatch(r"\w[\w.+ -]*", name):
        raise UsageError(f"{name!r} is not a valid profile name; use letters, digits and hyphens")
    if path.exists():  # before this machine is measured
        raise _taken(path)
    if extends:
        profile_of(extends)
        text = f'extends = "{extends}"\n# [host]\n# ram_gib = 128\n'
    else:
        text = _detected()
    try:
        new_text(private(path.parent) / path.name, text)
    except FileExistsError:
        raise _taken(path) from None
    console.path(path)


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path} already exists; edit it")


def _own() -> Path:
    from mixcli.planning.machines import own_profiles

    return own_profiles()


def _detected() -> str:
    from mixcli.planning.machines import detected_profile

    return detected_profile()
