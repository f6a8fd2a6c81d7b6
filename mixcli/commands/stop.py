"""mixcli stop: unload a model."""

import click

from mixcli.commands.options import NAME_OR_PATH, common
from mixcli.console import console
from mixcli.errors import UsageError


@click.command("stop")
@click.argument("model", required=False, type=NAME_OR_PATH)
@click.option("--all", "everything", is_flag=True, help="Unload every model.")
@common
def command(model: str | None, everything: bool) -> None:
    """Unload MODEL, or the only one that is loaded. Answers that are being written may end."""
    from mixcli.host.process import hosts, stop

    running = hosts()
    if model:
        chosen = [
            host for host in running if model in (host["model"], host["model"].split(":")[0], host["path"])
        ]
    else:
        chosen = running
    if not chosen:
        raise UsageError(
            f"{model or 'no model'} is not loaded; `mixcli ps` lists what is"
            if model
            else "no model is loaded"
        )
    if len(chosen) > 1 and not everything and not model:
        raise UsageError(
            f"{len(chosen)} models are loaded; name one of {', '.join(host['model'] for host in chosen)}, or say --all"
        )
    for host in chosen:
        stop(host["pid"])
        console.note(f"stopped {host['model']} (pid {host['pid']})")
