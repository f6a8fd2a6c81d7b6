"""Each Python block of docs/clients.md runs as it stands, but for the address and the key of the server."""

import json
import re
import subprocess

import pytest

from tests.clients.conftest import KEY, PYTHON, ServedDemo, needs_python_clients
from tests.conftest import ROOT

pytestmark = [pytest.mark.model, pytest.mark.slow, needs_python_clients]
PAGE = (ROOT / "docs" / "clients.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^## (\S+)\n\n```python\n(.*?)^```", PAGE, flags=re.M | re.S))
# runs every block as a main module, one after the other; the packages share most of what they import
RUN = """
import contextlib, io, json, sys, traceback
ends = {}
for name, block in json.load(sys.stdin).items():
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(block, name, "exec"), {"__name__": "__main__"})
        except BaseException:
            error = traceback.format_exc()
    ends[name] = [out.getvalue(), error]
json.dump(ends, sys.stdout)
"""


@pytest.fixture(scope="module")
def ends(served: ServedDemo) -> dict[str, tuple[str, str]]:
    """Return what each block printed, and the traceback where it failed."""
    here = {
        name: block.replace("http://127.0.0.1:8080", served.url.removesuffix("/v1")).replace(
            '"none"', repr(KEY)
        )
        for name, block in BLOCKS.items()
    }
    done = subprocess.run(
        [PYTHON, "-c", RUN],
        input=json.dumps(here),
        env=served.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {name: (out, error) for name, (out, error) in json.loads(done.stdout).items()}


@pytest.mark.parametrize("client", BLOCKS)
def test_the_block_prints_an_answer(ends: dict[str, tuple[str, str]], client: str) -> None:
    out, error = ends[client]
    assert not error
    assert out.strip()
