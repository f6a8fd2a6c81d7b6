"""mixcli quantize: quantize a GGUF to a smaller type."""

from pathlib import Path

import click

from mixcli.commands.conflicts import CheckedCommand
from mixcli.commands.conversion import Choices, allow_requantize_option, conversion_options, run
from mixcli.commands.options import common
from mixcli.errors import UsageError
from mixcli.system.signals import resumable


@click.command("quantize", cls=CheckedCommand)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output_type", metavar="[QUANT]", required=False)
@allow_requantize_option
@conversion_options
@common
@resumable()
def command(source: Path, output_type: str | None, allow_requantize: bool, choices: Choices) -> None:
    """Quantize SOURCE, a GGUF file or an installed model, to QUANT (such as Q4_K_M). SOURCE should be BF16, F16, F32 or Q8_0.

    Rerun the command to resume after an interruption or a full disk.
    """
    if output_type is None and choices.recipe is None:
        raise UsageError("no quant named; pass one, such as Q4_K_M, or a recipe with --recipe")
    run(_file_of(source), output_type, choices, allow_requantize=allow_requantize)


def _file_of(source: Path) -> Path:
    """Return a file as it is named, and the file of an installed model for its name."""
    from mixcli.store.reference import is_path, is_there
    from mixcli.store.store import find

    return source if is_there(source) or is_path(str(source)) else find(str(source)).path
