"""mixcli serve: serve a model over an OpenAI-compatible API."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common, model_option, planning_options, purpose_option
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.planning.load_options import LoadOptions
    from profiles.request import Purpose


@click.command("serve", cls=CheckedCommand)
@click.option(
    "--host",
    "address",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="Address to listen on. Addresses other than loopback require an API key.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
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
    "--allow-host",
    "allowed",
    multiple=True,
    metavar="NAME",
    help="Additional Host header to accept; may be repeated.",
)
@model_option
@purpose_option
@planning_options
@common
def command(
    address: str,
    port: int,
    key_variable: str,
    allowed: tuple[str, ...],
    model: str | None,
    purpose: "Purpose",
    load_options: "LoadOptions",
) -> None:
    """Serve a model over an OpenAI-compatible API: /v1/chat/completions, /v1/models, /tokenize and /health.

    Only this machine can connect, unless you pass --host. Requests from web pages are refused. Ctrl-C or SIGTERM lets running
    answers finish.
    """
    from dataclasses import replace

    from mixcli.planning.launch import load
    from mixcli.serve.gate import Gate, names_of
    from mixcli.serve.server import bound, key_for, serve

    source = click.get_current_context().get_parameter_source("key_variable")
    key = key_for(address, key_variable, is_named=source is ParameterSource.COMMANDLINE)
    load_options = replace(load_options, request=replace(load_options.request, purpose=purpose))
    with bound(address, port) as listener:
        hosts = [load(model, load_options, 0.0)]

        def revive() -> Path:
            console.warn(f"the model process ended ({hosts[-1].cause_of_death()}); restarting it")
            hosts[-1].release()
            hosts.append(load(model, load_options, 0.0))
            return hosts[-1].name.socket

        shown = f"[{address}]" if ":" in address else address
        console.note(f"serving {hosts[0].name.label} at http://{shown}:{listener.getsockname()[1]}/v1")
        try:
            serve(listener, Gate(names_of(address, allowed), key), hosts[0].name.socket, revive)
        finally:
            hosts[-1].release()
