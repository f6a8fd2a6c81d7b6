"""The file that a checkpoint is read with: made once, beside the result, and removed."""

from pathlib import Path

from mixcli.tailor.reader import TextReader
from mixcli.tailor.subject import subject_named
from quantize.sources.gguf_header import read_header
from tests.support.checkpoints import write_checkpoint
from tests.support.tiny_models import tiny_model


def test_a_checkpoint_is_read_by_a_file_that_is_made_once(home: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", n_layer=1, n_ff=256, n_expert=2)
    subject = subject_named(str(folder), None)
    reader, other = (TextReader(subject, tmp_path / name) for name in ("a.gguf", "b.gguf"))
    assert reader.identity == other.identity, "a second size with another name has the same statistics"
    path = reader.model().path
    assert (path.parent, read_header(path).get("general.file_type")) == (tmp_path, 7)
    state = path.stat()
    assert reader.model().path.stat() == state, "it is not made twice"
    reader.remove()
    assert [one.name for one in tmp_path.iterdir()] == ["hf"]


def test_a_file_is_read_as_it_is(home: Path, tmp_path: Path) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", file_type="BF16")
    reader = TextReader(subject_named(str(path), None), tmp_path / "a.gguf")
    assert (reader.model().path, reader.identity) == (path, "tiny.gguf")
    reader.remove()
    assert path.exists()
