"""The meaning of a function and its parameters, in the three styles that people write."""

import pytest

from mixcli.tools.docstring import parse

GOOGLE = """Return the weather.

    It rains.

    Args:
        city: Name of the city,
            in English.
        unit (str, optional): C or F.

    Returns:
        city: not a parameter.
    """
NUMPY = """Return the weather.

    It rains.

    Parameters
    ----------
    city : str
        Name of the city,
        in English.
    unit : str, optional
        C or F.

    Returns
    -------
    str
        The weather.
    """
SPHINX = """Return the weather.

    It rains.

    :param city: Name of the city,
        in English.
    :param str unit: C or F.
    :returns: The weather.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX])
def test_each_style_is_read(docstring: str) -> None:
    text, parameters = parse(docstring)
    assert text == "Return the weather.\n\nIt rains."
    assert parameters == {"city": "Name of the city, in English.", "unit": "C or F."}


def test_a_text_without_sections_is_the_description() -> None:
    assert parse("Add two numbers: a and b.") == ("Add two numbers: a and b.", {})
