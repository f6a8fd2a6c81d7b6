"""mixcli convert: convert a checkpoint to a GGUF."""

from pathlib import Path

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.conversion import Choices, allow_requantize_option, conversion_options, run
from mixcli.commands.options import common
from mixcli.system.signals import resumable


@click.command("convert", cls=CheckedCommand)
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-t",
    "--output-type",
    metavar="QUANT",
    help="Quant of the output, such as Q4_K_M (default), Q8_0 or BF16; COPY keeps the types of a GGUF.",
)
@click.option("--upcycle-experts", type=click.IntRange(min=0), default=0, metavar="N", help="Upcycle a dense checkpoint to a mixture of N equal experts.")  # fmt: skip
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    metavar="N",
    help="Random seed of the router for --upcycle-experts.",
)
@allow_requantize_option
@conversion_options
@common
@resumable()
def command(
    source: Path,
    output_type: str | None,
    upcycle_experts: int,
    seed: int,
    allow_requantize: bool,
    choices: Choices,
) -> None:
    """Convert SOURCE to a GGUF in one pass.

    SOURCE is a folder with a Mixtral, Mistral or Llama checkpoint in safetensors (Hugging Face or Mistral layout), or an old Mixtral
    GGUF with one tensor per expert, whose experts are merged without loss. Rerun the command to resume after an interruption or a full disk.
    """
    run(
        source,
        output_type,
        choices,
        allow_requantize=allow_requantize,
        upcycle_experts=upcycle_experts,
        seed=seed,
    )
