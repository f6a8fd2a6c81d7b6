"""mixcli serve: serve one or several models over an OpenAI-compatible API."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mixcli.commands.clustered import read_replicas, serve_on_cluster
from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand, given
from mixcli.commands.keep_alive import SERVED_ON_DEMAND, read_duration
from mixcli.commands.options import (
    NAME_OR_PATH,
    common,
    draft_option,
    planning_options,
    purpose_option,
)
from mixcli.errors import UsageError
from mixcli.system.console import console

if TYPE_CHECKING:
    import socket

    from mixcli.cluster.application import ReplicaCount
    from mixcli.commands.serving import Fleet
    from mixcli.planning.load_options import LoadOptions
    from mixcli.serve.gate import Gate
    from mixcli.serve.limits import Limits
    from mixcli.store.store import StoredModel
    from profiles.request import Purpose

VARIABLE = "MIXCLI_MODEL"  # the model where none is named
OF_SEVERAL = ("--alias", "--keep", "--keep-alive", "--preload")  # options that one model has no use for


@click.command("serve", cls=CheckedCommand)
@click.argument("named", nargs=-1, type=NAME_OR_PATH, metavar="[MODEL]...", shell_complete=complete_models)
@click.option(
    "--host",
    "address",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on; 0.0.0.0 is every address of this machine. Addresses other than loopback require an API key.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    metavar="PORT",
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--api-key-env",
    "key_variable",
    default="MIXCLI_API_KEY",
    show_default=True,
    metavar="NAME",
    help="Environment variable that holds the API key for clients.",
)
@click.option(
    "--api-keys",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="File with API keys, one per line, that only you can read (chmod 600). Changes apply without a restart.",
)
@click.option(
    "--max-concurrency",
    type=click.IntRange(1),
    metavar="N",
    help="Running requests per API key; more are refused with 429. Default: no limit.",
)
@click.option(
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Additional Host header to accept where no API key is set; may be repeated.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Web pages that may use the server, such as http://localhost:3000; may be repeated. '*' (all) requires an API key.",
)
@click.option("--ui", is_flag=True, help="Serve a chat page at /.")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    type=NAME_OR_PATH,
    metavar="MODEL",
    shell_complete=complete_models,
    help="Name of an installed model (see `mixcli list`) or path of a .gguf file; env: MIXCLI_MODEL. May be repeated: requests choose one by their `model`. "
    "Default: the model that `mixcli default` shows, or the only one.",
)
@click.option("--all", "is_all", is_flag=True, help="Serve all installed models that can be loaded.")
@click.option(
    "--alias",
    "aliases",
    multiple=True,
    metavar="NAME=MODEL",
    help="Another name for one of several models, such as gpt-4o=mixtral; may be repeated.",
)
@click.option(
    "--keep",
    "kept",
    multiple=True,
    metavar="NAME",
    help="With several models: load this one at the start and never unload it; may be repeated. The others get the rest of the memory.",
)
@click.option(
    "--keep-alive",
    "idle_limit",
    default=SERVED_ON_DEMAND,
    show_default=True,
    metavar="TIME",
    callback=read_duration,
    help="With several models: unload one that was loaded on demand after this time without a request: 30s, 5m, 1h, 0 (at once) or -1 (never).",
)
@click.option(
    "--preload", is_flag=True, help="With several models: load as many at the start as fit together."
)
@click.option(
    "--ray",
    "cluster",
    metavar="ADDRESS",
    help="Serve one model with replicas on a Ray cluster: its address (HOST:PORT), auto for the one that runs on this machine, or local to start one.",
)
@click.option(
    "--replicas",
    "count",
    metavar="N|MIN-MAX",
    callback=read_replicas,
    help="With --ray: number of replicas, or bounds between which they follow the load. Default: one per GPU, or per node without GPUs.",
)
@purpose_option
@planning_options
@draft_option
@common
def command(
    address: str,
    port: int,
    key_variable: str,
    key_file: Path | None,
    max_concurrency: int | None,
    allowed: tuple[str, ...],
    origins: tuple[str, ...],
    ui: bool,
    named: tuple[str, ...],
    models: tuple[str, ...],
    is_all: bool,
    aliases: tuple[str, ...],
    kept: tuple[str, ...],
    idle_limit: float,
    preload: bool,
    cluster: str | None,
    count: "ReplicaCount | None",
    purpose: "Purpose",
    load_options: "LoadOptions",
) -> None:
    """Serve models over an OpenAI-compatible API at /v1; docs/serve.md lists the paths.

    Only this machine can connect, unless you pass --host. Web pages are refused, unless you pass --allow-origin. Connections are not
    encrypted (no TLS): put a reverse proxy such as Caddy in front of it on a network that you do not trust. Requests wait while the model
    loads, and /health reports the progress. After Ctrl-C or SIGTERM, running answers finish first.

    With one model, the `model` of a request is ignored. With several, the first is loaded at the start and the others when a request
    names them; if memory runs short, the least recently used model is unloaded.
    """
    from dataclasses import replace

    from mixcli.serve.addresses import bound
    from mixcli.serve.limits import Limits

    gate = _gate(address, key_variable, key_file, allowed, origins, has_page=ui)
    load_options = replace(load_options, request=load_options.request.for_work(purpose))
    limits = Limits(max_concurrency)
    if cluster is not None:
        _check_single(named or models)
        serve_on_cluster((address, port), gate, limits, named or models, load_options, cluster, count)
        return
    stored = _stored(
        named or models, load_options, is_all=is_all
    )  # refuses a wrong name before a port is open
    if len(stored) == 1:
        _check_single(())
        with bound(address, port) as listener:
            _serve_one(listener, address, gate, limits, stored[0], load_options)
        return
    from mixcli.commands.serving import FleetChoice, fleet_of

    if load_options.draft is not None:
        raise UsageError("--draft cannot be combined with several models; remove it, or serve one model")
    fleet = fleet_of(FleetChoice(stored, kept, aliases, is_all), load_options)
    with bound(address, port) as listener:
        _serve_several(listener, address, gate, limits, fleet, idle_limit, preload=preload)


def _stored(
    names: tuple[str, ...], load_options: "LoadOptions", *, is_all: bool
) -> "tuple[StoredModel, ...]":
    """Return the models that are named, or all; without either that of the environment, or the default."""
    from mixcli.planning.launch import installed
    from mixcli.store.store import everything

    if is_all:
        return tuple(everything()) or (installed(None, load_options),)
    if not names:
        return (installed(os.environ.get(VARIABLE) or None, load_options),)
    return tuple(installed(name, load_options) for name in names)


def _check_single(names: tuple[str, ...]) -> None:
    """Raise UsageError for several names, or an option that only several models have a use for."""
    if len(names) > 1:
        raise UsageError(f"--ray serves one model, and {len(names)} are named; start one server for each")
    given_here = given(click.get_current_context())
    if option := next((option for option in OF_SEVERAL if option in given_here), None):
        raise UsageError(f"{option} has no effect with one model; pass several, or remove {option}")


def _serve_one(
    listener: "socket.socket",
    address: str,
    gate: "Gate",
    limits: "Limits",
    stored: "StoredModel",
    load_options: "LoadOptions",
) -> None:
    from mixcli.client.held_host import HeldHost
    from mixcli.planning.launch import load
    from mixcli.serve.addresses import note_listening, urls
    from mixcli.serve.announcement import announced
    from mixcli.serve.one_model import OneModel
    from mixcli.serve.server import PortServer

    held = HeldHost(lambda report: load(stored, load_options, 0.0, report=report), stored.label)
    model = OneModel(held.revive, stored.label, held.known_cause)
    server = PortServer(listener, gate, limits, model)
    try:
        with server.running(), announced(listener, address, gate.look_key):
            port = note_listening(listener, address, "the model is", has_page=bool(gate.pages))
            host = held.load(model.progress)
            model.ready(host.socket)
            console.note(f"serving {host.name.label} at {' and '.join(urls(address, port))}")
            server.wait()
    finally:
        held.release()


def _serve_several(
    listener: "socket.socket",
    address: str,
    gate: "Gate",
    limits: "Limits",
    fleet: "Fleet",
    idle_limit: float,
    *,
    preload: bool,
) -> None:
    from mixcli.serve.addresses import note_listening, urls
    from mixcli.serve.announcement import announced
    from mixcli.serve.server import PortServer
    from mixcli.serve.several_models import SeveralModels

    models = SeveralModels(fleet.served_models, fleet.memory.limits, fleet.loader, idle_limit)
    server = PortServer(listener, gate, limits, models)
    try:
        with server.running(), announced(listener, address, gate.look_key):
            port = note_listening(listener, address, "their models are", has_page=bool(gate.pages))
            models.preload(others=preload).result()
            console.note(f"serving {fleet.served_models.listed()} at {' and '.join(urls(address, port))}")
            server.wait()
    finally:
        fleet.loader.close()


def _gate(
    address: str,
    key_variable: str,
    key_file: Path | None,
    allowed: tuple[str, ...],
    origins: tuple[str, ...],
    *,
    has_page: bool,
) -> "Gate":
    """Return the rules for clients; UsageError where the key that they need is missing."""
    from mixcli.serve.chat_page import page_files
    from mixcli.serve.cors import cors_of
    from mixcli.serve.gate import Gate, names_of
    from mixcli.serve.keys import KeyRing
    from mixcli.serve.server import key_for

    source = click.get_current_context().get_parameter_source("key_variable")
    is_named = source is ParameterSource.COMMANDLINE
    key = key_for(address, key_variable, is_named=is_named, has_others=key_file is not None)
    has_key = key is not None or key_file is not None
    keys = KeyRing(key, key_file, console.warn) if has_key else None
    pages = page_files() if has_page else {}
    return Gate(
        names_of(address, allowed), keys, cors_of(origins, has_key=has_key), pages, os.urandom(16).hex()
    )
