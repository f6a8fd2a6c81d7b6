"""The file that a checkpoint is read with: made once, beside the result, and removed."""

from pathlib import Path

import pytest

from mixcli.errors import UsageError
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
    first = reader.identity
    assert reader.model().path == path
    tiny_model(path, file_type="BF16", seed=8)
    assert reader.identity != first, "another file of that name has other statistics"
    reader.remove()
    assert path.exists()


@pytest.mark.parametrize(("n_expert", "words"), [(0, "is missing"), (2, "is \\(2, 256, 256\\), but must be \\(4, 256, 256\\)")])  # fmt: skip
def test_a_reader_of_another_model_is_refused(home: Path, tmp_path: Path, n_expert: int, words: str) -> None:
    path = tiny_model(tmp_path / "tiny.gguf", file_type="BF16")
    other = tiny_model(tmp_path / "other.gguf", n_expert=n_expert)
    with pytest.raises(UsageError, match=f"--reader .*other.gguf is another model: blk.0.ffn_.* {words}"):
        subject_named(str(path), str(other))


def test_what_another_checkpoint_left_is_not_read(home: Path, tmp_path: Path) -> None:
    """A run that is killed leaves the file that reads; the folder may have other weights when it is run again."""
    folders = [write_checkpoint(tmp_path / name, n_layer=1, n_ff=256, n_expert=2, seed=seed) for seed, name in enumerate("ab")]  # fmt: skip
    first, second = (TextReader(subject_named(str(folder), None), tmp_path / "a.gguf") for folder in folders)
    path = first.model().path
    left = path.read_bytes()
    assert second.model().path.read_bytes() != left
    assert first.model().path.read_bytes() == left
    path.write_bytes(tiny_model(tmp_path / "mine.gguf").read_bytes())
    first.remove()
    assert path.exists(), "only what was made is removed"
