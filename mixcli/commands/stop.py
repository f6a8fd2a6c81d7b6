"""mixcli stop: unload a model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import NAME_OR_PATH, common
from mixcli.errors import MixcliError, UsageError
from mixcli.system.console import console
from mixcli.system.text import clean, did_you_mean

if TYPE_CHECKING:
    from mixcli.host.protocol.health import HostHealth


@click.command("stop", cls=CheckedCommand)
@click.argument("model", required=False, type=NAME_OR_PATH)
@click.option("--all", "everything", is_flag=True, help="Unload every model.")
@common
def command(model: str | None, everything: bool) -> None:
    """Unload MODEL (a name, or a process id from `mixcli ps`), or the only loaded model.

    Running answers finish first. A model process that does not respond is killed.
    """

    from mixcli.client.host_watch import STOPPING
    from mixcli.client.process import hosts, stop
    from quantize.parallel import in_parallel

    running = hosts()
    if model:
        chosen = [host for host in running if model in _names(host)]
    else:  # those that are about to end count only where there are no others
        chosen = [host for host in running if everything or host.status != STOPPING] or running
    if not chosen:
        known = [name for host in running for name in _names(host) if name]
        hint = did_you_mean(model or "", known, "`mixcli ps` lists loaded models")
        if everything and not model:
            console.note("no model is loaded")
            return
        raise UsageError(f"{clean(model)} is not loaded; {hint}" if model else "no model is loaded")
    if len(chosen) > 1 and not everything and not model:
        raise UsageError(
            f"{len(chosen)} models are loaded; choose one of {', '.join(_named(chosen))}, or pass --all"
        )
    failed: list[MixcliError] = []

    def end(number: int) -> MixcliError | None:
        try:
            stop(chosen[number].pid)
        except MixcliError as error:
            return error
        return None

    for number, error in in_parallel(end, range(len(chosen)), len(chosen), joins=False):
        if error is not None:
            failed.append(error)
        else:
            console.note(f"stopped {chosen[number].model or 'a model'} (pid {chosen[number].pid})")
    if failed:
        raise failed[0]


def _named(chosen: Sequence["HostHealth"]) -> list[str]:
    """Return what names each of some models: its process id where it has no name, or shares it."""
    labels = [host.model for host in chosen]
    return [
        f"{label} (pid {host.pid})" if label and labels.count(label) > 1 else label or str(host.pid)
        for label, host in zip(labels, chosen, strict=True)
    ]


def _names(host: "HostHealth") -> tuple[str, ...]:
    label = host.model or ""
    return (label, label.split(":")[0], host.path or "", str(host.pid))
