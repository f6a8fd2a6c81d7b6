"""mixcli convert: a checkpoint becomes a GGUF."""

from pathlib import Path

import click

from mixcli.commands.conflicts import Command
from mixcli.commands.conversion import Choices, allow_requantize_option, conversion_options, run
from mixcli.commands.options import common


@click.command("convert", cls=Command)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-t",
    "--output-type",
    metavar="TYPE",
    help="File type, e.g. Q4_K_M (default), Q8_0, BF16; COPY keeps a GGUF's types.",
)
@click.option("--upcycle-experts", type=click.IntRange(min=0), default=0, metavar="N", help="Make a dense checkpoint a mixture of N equal experts.")  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    help="Seed of the router that --upcycle-experts draws.",
)
@allow_requantize_option
@conversion_options
@common
def command(
    source: Path,
    output_type: str | None,
    upcycle_experts: int,
    seed: int,
    allow_requantize: bool,
    choices: Choices,
) -> None:
    """Make a GGUF of SOURCE in one pass.

    SOURCE is a folder with a Mixtral, Mistral or Llama-declared checkpoint (safetensors, in Hugging Face's or Mistral's own layout), or an old Mixtral
    GGUF with one tensor per expert, which is merged without loss. After a kill or a full disk the same command goes on where it was.
    """
    run(
        source,
        output_type,
        choices,
        allow_requantize=allow_requantize,
        upcycle_experts=upcycle_experts,
        seed=seed,
    )
