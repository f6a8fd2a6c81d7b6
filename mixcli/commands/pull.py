"""mixcli pull: bring a model into the store."""

import click

from mixcli.commands.options import common
from mixcli.console import console
from mixcli.words import size


@click.command("pull")
@click.argument("model")
@click.option(
    "--quant", "--type", "output_type", metavar="TYPE", help="File type to make, e.g. Q4_K_M, Q8_0 or BF16."
)
@click.option(
    "--name", metavar="NAME", help="Name for a model that is made from a folder. Default: the folder's name."
)
@common
def command(model: str, output_type: str | None, name: str | None) -> None:
    """Bring MODEL into the store.

    MODEL is a name of the catalog (demo, demo:Q8_0) or a folder with a Mixtral or Mistral checkpoint in safetensors, which is
    converted to GGUF on the way.
    """
    from mixcli.hub.pull import pull

    with console.progress(f"pulling {model}") as bar:
        stored, fresh = pull(model, output_type and output_type.upper(), name, bar.update)
    manifest = stored.manifest
    assert manifest is not None
    what = f"{stored.label}, {size(manifest.size)}" + ("" if fresh else " (was here already)")
    console.note(f"{what}\n{manifest.description}\nlicence: {manifest.licence_words}")
