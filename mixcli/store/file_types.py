"""Parse file and tensor types from the command line, with a suggestion for a misspelled one."""

from collections.abc import Iterable

from mixcli.errors import UsageError
from mixcli.system.text import nearest

COPY = "COPY"


def file_type(name: str) -> str:
    """Return the canonical name of a file type, "q4_k" as "Q4_K_M", or COPY; UsageError lists what there is."""
    from quantize.errors import Unsupported
    from quantize.recipe import FILE_TYPES, file_type_name

    try:
        return COPY if name.upper() == COPY else file_type_name(name)
    except Unsupported as error:
        raise UsageError(_with_nearest(str(error), name, FILE_TYPES)) from None


def tensor_type(name: str) -> str:
    """Return the canonical name of a tensor type; UsageError lists what there is."""
    from quantize import recipe
    from quantize.errors import Unsupported
    from quantize.ggml_types import GGMLQuantizationType

    try:
        return recipe.tensor_type(name).name
    except Unsupported as error:
        raise UsageError(_with_nearest(str(error), name, GGMLQuantizationType.__members__)) from None


def _with_nearest(message: str, name: str, names: Iterable[str]) -> str:
    near = nearest(name, names)
    return f"{message}; did you mean {near}?" if near else message
