"""mixcli serve: serve a model over an OpenAI-compatible API."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from mixcli.commands.completion import complete_models
from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import (
    NAME_OR_PATH,
    common,
    draft_option,
    model_option,
    planning_options,
    purpose_option,
)
from mixcli.system.console import console

if TYPE_CHECKING:
    from mixcli.client.process import Host
    from mixcli.planning.load_options import LoadOptions
    from mixcli.serve.gate import Gate
    from profiles.request import Purpose


@click.command("serve", cls=CheckedCommand)
@click.argument("named", required=False, type=NAME_OR_PATH, metavar="[MODEL]", shell_complete=complete_models)
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
    help="File with API keys, one a line, that only you can read (chmod 600). Changes apply without a restart.",
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
@model_option
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
    named: str | None,
    model: str | None,
    purpose: "Purpose",
    load_options: "LoadOptions",
) -> None:
    """Serve a model over an OpenAI-compatible API at /v1; docs/serve.md lists the paths.

    Only this machine can connect, unless you pass --host. Web pages are refused, unless you pass --allow-origin. Connections are not
    encrypted (no TLS): put a reverse proxy such as Caddy in front of it on a network that you do not trust. Requests wait while the model
    loads, and /health reports the progress. After Ctrl-C or SIGTERM, running answers finish first.
    """
    from dataclasses import replace

    from mixcli.planning.launch import installed, load
    from mixcli.serve.addresses import bound, page_urls, urls
    from mixcli.serve.limits import Limits
    from mixcli.serve.server import PortServer

    gate = _gate(address, key_variable, key_file, allowed, origins, has_page=ui)
    load_options = replace(load_options, request=replace(load_options.request, purpose=purpose))
    stored = installed(named or model, load_options)  # refuses a wrong name before a port is open
    hosts: list[Host] = []

    def loaded(report: Callable[[float], None]) -> "Host":
        hosts.append(load(stored, load_options, 0.0, report=report))
        return hosts[-1]

    def revive() -> Path:
        console.warn(f"the model process crashed ({hosts[-1].cause_of_death()}); restarting it")
        hosts[-1].release()
        return loaded(lambda _: None).name.socket

    with bound(address, port) as listener:
        server = PortServer(listener, gate, Limits(max_concurrency), revive)
        try:
            with server.running():
                bound_port = listener.getsockname()[1]
                console.note(
                    f"listening on port {bound_port} of {address}; requests wait until the model is loaded"
                )
                if ui:
                    console.note(f"chat page at {' and '.join(page_urls(address, bound_port))}")
                host = loaded(server.progress)
                server.ready(host.name.socket)
                console.note(f"serving {host.name.label} at {' and '.join(urls(address, bound_port))}")
                server.wait()
        finally:
            if hosts:
                hosts[-1].release()


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
    return Gate(names_of(address, allowed), keys, cors_of(origins, has_key=has_key), pages)
