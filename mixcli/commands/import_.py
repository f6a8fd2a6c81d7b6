"""mixcli import: take a GGUF that is here already into the store."""

from pathlib import Path

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.options import common
from mixcli.console import console
from mixcli.words import size


@click.command("import", cls=Command)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="The model's name. Default: the file's, without its type.")
@click.option(
    "--copy",
    is_flag=True,
    help="Copy the file into the store (or link it there) instead of using it where it lies.",
)
@common
def command(path: Path, name: str | None, copy: bool) -> None:
    """Take the GGUF file PATH into the store, by any of its parts where it has several; it stays where it is.

    Its type is what the file's name says, such as Q4_K_M; where the name says none, what the file itself says.
    """
    from mixcli.hub.adopt import adopt

    with console.progress(f"importing {path.name}", unit="bytes") as bar:
        stored, fresh = adopt(path, name, copy, bar.update)
    about = stored.manifest
    assert about is not None
    console.note(
        f"{stored.label}, {size(about.size)}{'' if fresh else ' (was here already)'}\nlicence: {about.licence_words}"
    )
