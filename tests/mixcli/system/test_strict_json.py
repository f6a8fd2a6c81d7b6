"""JSON as the standard has it: what is ambiguous is refused, in time that grows with the text."""

import pytest

from mixcli.system import strict_json


def test_a_name_that_comes_again_after_many_others_is_found() -> None:
    """Each name was counted among all others before: 200,000 of them took hours, in a batch whose server sends such an answer."""
    names = [f'"{n}": 0' for n in range(200_000)]
    with pytest.raises(strict_json.Repeated, match="'199999' is given twice"):
        strict_json.loads("{" + ", ".join([*names, names[-1]]) + "}")
