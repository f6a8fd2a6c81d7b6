"""What another program downloaded into the shared cache stays there."""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.support import small_gguf
from tests.support.hub import in_python
from tests.support.hub_server import StandIn

FETCH = (
    "from huggingface_hub import hf_hub_download; print(hf_hub_download('TheOld/old-GGUF', 'old.F16.gguf'))"
)


def test_a_file_that_was_here_before_is_kept_when_its_experts_are_merged(
    hub: StandIn, pull: Callable[..., "subprocess.CompletedProcess[str]"], home: Path
) -> None:
    old = small_gguf.gguf(split_experts=True)
    hub.add("TheOld/old-GGUF", {"old.F16.gguf": old})
    path = Path(in_python(FETCH))
    done = pull("TheOld/old-GGUF", "--repair")
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == old
