"""How much of a repository is read before the disk is looked at: headers, in few requests, and nothing of what comes after them."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from quantize.source import texts
from tests.support import small_gguf
from tests.support.checkpoints import write_checkpoint
from tests.support.hub import in_python
from tests.support.hub_server import StandIn

MIB = 1 << 20
READ = """
import sys
from pathlib import Path
from mixcli.pull.hub_client import RemoteReader, look
from quantize.sources import gguf_header, safetensors
repo = look("org/x")
reader = RemoteReader(repo, repo.files[0])
if sys.argv[1] == "gguf":
    print(gguf_header.read_header(reader).data_offset)
elif sys.argv[1] == "safetensors":
    print(len(safetensors.read_header(Path("x"), reader)))
else:
    step, end = 1000, 3 << 20
    got = b"".join(reader.read_at(at, step) for at in range(0, end, step))
    assert reader.head[: len(got)] == got
    assert reader.read_at(5, 7) == got[5:12]
    far = reader.read_at(reader.size - 9, 9)
    assert len(far) == 9
    print(len(got))
"""
FULL = """
import shutil, sys
from mixcli.cli import main
shutil.disk_usage = lambda _path: shutil._ntuple_diskusage(1 << 40, (1 << 40) - 999, 999)
sys.exit(main())
"""


def safetensors(n_tensors: int, n_data: int = 0) -> bytes:
    """Return a file whose header describes so many empty tensors."""
    entries = {f"t{i}": {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]} for i in range(n_tensors)}
    entries["data"] = {"dtype": "U8", "shape": [n_data], "data_offsets": [0, n_data]}
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + bytes(n_data)


def long_gguf(n_bytes: int) -> bytes:
    """Return a GGUF with so many bytes of metadata."""
    return small_gguf.gguf(
        MIB, keys={**small_gguf.metadata(), "x.words": texts(["w" * 1000] * (n_bytes // 1008))}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "make", "size", "most"),
    [
        ("gguf", long_gguf, 9 * MIB, 5),
        ("safetensors", safetensors, 10, 1),
        ("safetensors", safetensors, 60_000, 2),
        ("steps", bytes, 8 * MIB, 9),
    ],
)
def test_a_header_takes_few_requests(
    hub: StandIn, online: dict[str, str], how: str, make: Callable[[int], bytes], size: int, most: int
) -> None:
    hub.add("org/x", {"x.safetensors": make(size)})
    assert int(in_python(READ, how)) > 10
    assert 1 <= len(hub.downloads()) <= most
    asked = sorted((seen.start, seen.start + seen.length) for seen in hub.downloads())
    assert all(before[1] <= after[0] for before, after in pairwise(asked)), "a byte was asked for twice"


@pytest.mark.slow
@pytest.mark.parametrize("args", [["org/gguf"], ["org/weights", "--quant", "Q4_K_M"]])
def test_a_full_disk_is_told_before_any_tensor_is_fetched(
    hub: StandIn, online: dict[str, str], tmp_path: Path, args: list[str]
) -> None:
    hub.add("org/gguf", {"x.Q4_K_M.gguf": small_gguf.gguf(8 * MIB)})
    folder = write_checkpoint(tmp_path / "weights", n_layer=1, n_shards=4)
    hub.add("org/weights", {path.name: path.read_bytes() for path in folder.iterdir()})
    done = subprocess.run(
        [sys.executable, "-c", FULL, "pull", *args], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "but 999 B are free" in done.stderr) == (4, True), done.stderr
    assert all(seen.start == 0 and seen.length <= MIB for seen in hub.downloads())
    assert len(hub.downloads()) <= 4
