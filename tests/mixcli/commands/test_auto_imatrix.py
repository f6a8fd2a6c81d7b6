"""--imatrix auto: what an installed quant computed is used again for that very file, and for no other of the same name."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mixcli.commands.auto_imatrix import imatrix_file, place_of
from mixcli.planning.load_options import LoadOptions
from mixcli.store.import_ import import_model
from mixcli.store.store import find
from profiles.request import PlanRequest
from tests.support.tiny_models import tiny_model

OPTIONS = LoadOptions(PlanRequest())
NO_ROOM = replace(OPTIONS, ram=1 << 20)  # what would be computed is refused


def installed(folder: Path, name: str, seed: int) -> Path:
    folder.mkdir(exist_ok=True)
    path = tiny_model(folder / "tiny-Q8_0.gguf", file_type="Q8_0", seed=seed)
    import_model(path, name, False, lambda *_: None)
    return path


def test_a_matrix_belongs_to_the_file_that_computed_it(home: Path, tmp_path: Path) -> None:
    path = installed(tmp_path / "a", "first", 1)
    installed(tmp_path / "b", "second", 2)
    computed = place_of(find("first"), OPTIONS)
    computed.write_bytes(b"GGUF")
    assert imatrix_file("auto", "first", OPTIONS) == computed
    assert computed.name == "tiny-Q8_0.imatrix.gguf", "its name stands in what is quantized with it"
    with pytest.raises(Exception, match="GiB are allowed") as caught:
        imatrix_file("auto", "second", NO_ROOM)
    assert getattr(caught.value, "exit_code", 0) == 4
    state = path.stat()
    tiny_model(path, file_type="Q8_0", seed=3)  # replaced, with the size and the time of the one before
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(Exception, match="GiB are allowed"):
        imatrix_file("auto", "first", NO_ROOM)
