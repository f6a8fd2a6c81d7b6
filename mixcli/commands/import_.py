"""mixcli import: import a GGUF file into the store."""

from pathlib import Path

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.options import common
from mixcli.system.console import console
from mixcli.system.formatting import format_bytes


@click.command("import", cls=CheckedCommand)
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="Name of the model. Default: the file name without its quant.")
@click.option(
    "--copy",
    is_flag=True,
    help="Copy or hard-link the file into the store instead of using it in place.",
)
@common
def command(path: Path, name: str | None, copy: bool) -> None:
    """Import the GGUF file PATH (any shard, if it is split) into the store; the file stays in place.

    The quant, such as Q4_K_M, is taken from the file name, or else from the metadata.
    """
    from mixcli.store.import_ import import_model

    with console.progress(f"importing {path.name}", unit="bytes") as bar:
        stored, fresh = import_model(path, name, copy, bar.update)
    about = stored.manifest
    assert about is not None
    console.note(
        f"{stored.label}, {format_bytes(about.size)}{'' if fresh else ' (already installed)'}\nlicense: {about.license_words}"
    )
