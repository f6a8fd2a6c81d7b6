"""Names of file and tensor types as a person writes them; one that does not exist is a slip of the fingers, not a broken file."""

from mixcli.errors import UsageError

COPY = "COPY"


def file_type(name: str) -> str:
    """Return the canonical name of a file type, "q4_k" as "Q4_K_M", or COPY; UsageError lists what there is."""
    from quantize.errors import Unsupported
    from quantize.recipe import file_type_name

    try:
        return COPY if name.upper() == COPY else file_type_name(name)
    except Unsupported as error:
        raise UsageError(str(error)) from None


def tensor_type(name: str) -> str:
    """Return the canonical name of a tensor type; UsageError lists what there is."""
    from quantize import recipe
    from quantize.errors import Unsupported

    try:
        return recipe.tensor_type(name).name
    except Unsupported as error:
        raise UsageError(str(error)) from None
