"""Shell completion for bash, zsh and fish: the script, and the names of installed models."""

import os
from pathlib import Path

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_MIXCLI_COMPLETE"


def complete_models(
    _context: click.Context, _option: click.Parameter, typed: str
) -> "list[click.shell_completion.CompletionItem]":
    """Return the models of this machine, and .gguf files, that begin as typed."""
    from click.shell_completion import CompletionItem

    from mixcli.store.store import models

    labels = [model.label for model in models()]
    names = sorted({label.rpartition(":")[0] for label in labels if ":" in label})
    found = [CompletionItem(name) for name in (*names, *labels) if name.startswith(typed)]
    return found or [CompletionItem(typed, type="file")]


def _print(context: click.Context, _option: click.Parameter, shell: str | None) -> None:
    if not shell:
        return
    from click.shell_completion import get_completion_class

    from mixcli.errors import UsageError
    from mixcli.system.console import console

    name = Path(os.environ.get("SHELL", "")).name if shell == "auto" else shell
    kind = get_completion_class(name) if name in SHELLS else None
    if kind is None:
        raise UsageError(f"invalid shell: use {', '.join(SHELLS)}, such as --print-completion bash")
    root = context.find_root()
    console.write(kind(root.command, {}, "mixcli", VARIABLE).source() + "\n")
    context.exit()


print_completion_option = click.option(
    "--print-completion",
    type=click.Choice(["auto", *SHELLS]),
    is_flag=False,
    flag_value="auto",
    expose_value=False,
    is_eager=True,
    callback=_print,
    metavar="SHELL",
    help="Print the completion script for bash, zsh or fish and exit.",
)
