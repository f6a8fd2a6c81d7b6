"""How many clients a port has at a time: no more than there are descriptors for, whose lack would look like a model process that has crashed."""

import pytest

from tests.support.costly import runs

CODE = """
import resource
from mixcli.serve.connection import max_connections
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(max_connections(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "n", "now"), [(128, 2048, 400, 864), (128, 200, 68, 200), (40, 40, 1, 40), (1000, 1000, 400, 1000)]
)  # fmt: skip
def test_the_system_is_asked_for_more_descriptors(soft: int, hard: int, n: int, now: int) -> None:
    assert runs(CODE.format(soft=soft, hard=hard)) == f"{n} {now}"
