"""--keep-alive: how long a model stays loaded, and the default of each command; mixcli/host/keep_alive.py does the counting."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

AFTER_A_COMMAND = "5m"  # of run, chat and batch: after the command has ended
SERVED_ON_DEMAND = "15m"  # of serve with several models: without a request

F = TypeVar("F", bound=Callable[..., Any])


def read_duration(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """Return the seconds of a time such as 5m, for the callback of an option."""
    from mixcli.system.formatting import parse_duration

    return parse_duration(value)


def keep_alive_option(command: F) -> F:
    """Add --keep-alive: how long the model stays loaded afterwards; the command gets seconds."""
    return click.option(
        "--keep-alive",
        default=AFTER_A_COMMAND,
        show_default=True,
        metavar="TIME",
        callback=read_duration,
        help="How long the model stays loaded afterwards: 30s, 5m, 1h, 0 (unload at once) or -1 (until `mixcli stop`).",
    )(command)


__all__ = ["AFTER_A_COMMAND", "SERVED_ON_DEMAND", "keep_alive_option", "read_duration"]
