"""What an imported file is called, and two files that would be called alike: neither stands in for the other."""

from pathlib import Path

import pytest

from mixcli.errors import IntegrityError, UsageError
from mixcli.store import gguf_names, manifest, store
from mixcli.store.import_ import import_model
from mixcli.system import paths
from quantize.source import text, u32
from tests.conftest import Runner
from tests.support import family_gguf, small_gguf


def quiet(_done: float, _total: float, _stage: str = "") -> None:
    pass


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("Tiny.Q4_K_M.gguf", "tiny:Q4_K_M"),
        ("tiny-q8_0.GGUF", "tiny:Q8_0"),
        ("Tiny-v0.1.fp16.gguf", "tiny-v0.1:F16"),
        ("tiny-FP32.gguf", "tiny:F32"),
        ("tiny-Q4_K_M-chat.gguf", "tiny-q4_k_m-chat:Q4_K_M"),
        ("tiny.Q8_0-00001-of-00001.gguf", "tiny:Q8_0"),
        ("Q8_0.gguf", "q8_0:Q8_0"),
        ("tiny.gguf", "tiny:Q5_K_S"),
        ("model", "model:Q5_K_S"),
        ("Größe.gguf", "größe:Q5_K_S"),
    ],
)
def test_a_model_is_called_as_its_file(home: Path, tmp_path: Path, file: str, label: str) -> None:
    """What no name says comes out of the file: general.file_type, 16 for Q5_K_S."""
    path = small_gguf.write(
        tmp_path / file, small_gguf.gguf(keys=small_gguf.metadata(**{"general.file_type": u32(16)}))
    )
    assert import_model(path, None, False, quiet)[0].label == label


def test_a_file_that_says_no_type_is_of_the_type_of_most_of_its_bytes(home: Path, tmp_path: Path) -> None:
    for keys in ({}, {"general.file_type": u32(1024 + 7)}):
        path = small_gguf.write(tmp_path / "tiny.gguf", small_gguf.gguf(keys=small_gguf.metadata(**keys)))
        assert import_model(path, f"tiny{len(keys)}", False, quiet)[0].label == f"tiny{len(keys)}:F16"


def test_another_file_of_the_same_name_is_refused(home: Path, tmp_path: Path) -> None:
    files = [tmp_path / folder / "tiny.F16.gguf" for folder in "abc"]
    for path, seed in zip(files, (1, 2, 1), strict=True):
        path.parent.mkdir()
        small_gguf.write(path, small_gguf.gguf(seed=seed))
    first, fresh = import_model(files[0], None, False, quiet)
    assert fresh
    with pytest.raises(UsageError, match=rf"from {files[0]}, .*{files[1]} is another file; .*--name"):
        import_model(files[1], None, False, quiet)
    assert import_model(files[2], None, False, quiet) == (first, False)  # the same bytes
    assert import_model(files[1], "other", False, quiet)[0].label == "other:F16"


def test_a_copy_is_made_of_what_was_imported_where_it_lies(home: Path, tmp_path: Path) -> None:
    path = small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf())
    import_model(path, None, False, quiet)
    copied, fresh = import_model(path, None, True, quiet)
    assert (fresh, copied.path.parent) == (True, manifest.homes()[0])
    assert import_model(path, None, True, quiet)[1] is import_model(path, None, False, quiet)[1] is False
    with pytest.raises(UsageError, match="is the file of the model tiny:F16; use it by that name"):
        import_model(copied.path, "other", False, quiet)


def test_an_interrupted_import_leaves_no_copy(home: Path, tmp_path: Path) -> None:
    path = small_gguf.write(tmp_path / "tiny.F16.gguf", small_gguf.gguf())

    def interrupt(_done: float, _total: float, _stage: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_model(path, None, True, interrupt)
    assert not list(paths.models_dir().rglob("*.gguf"))
    assert import_model(path, None, True, quiet)[1]


def test_names_of_parts(home: Path) -> None:
    assert gguf_names.model_name("Mixtral-8x7B.Q4_K_M-00002-of-00003.gguf") == "Mixtral-8x7B"
    assert gguf_names.model_name("a.Q4_0.b.Q8_0.gguf") == "a.Q4_0.b"


def test_what_cannot_run_is_refused_as_a_pull_refuses_it(home: Path, tmp_path: Path) -> None:
    path = family_gguf.write("qwen3moe", tmp_path / "m.gguf", changes={"general.type": text("adapter")})
    with pytest.raises(IntegrityError, match=r"m\.gguf is not a model: its general.type is 'adapter'"):
        import_model(path, None, False, quiet)
    assert not manifest.homes()


def test_what_a_file_says_of_itself_does_not_reach_the_terminal(mixcli: Runner, tmp_path: Path) -> None:
    """Neither through a pipe: escape sequences and texts without end."""
    keys = {"general.name": text("a\x1b]0;title\x07\nb"), "general.license": text("\x1b[2Jfree " * 100)}
    path = small_gguf.write(tmp_path / "tiny.gguf", small_gguf.gguf(keys=small_gguf.metadata(**keys)))
    for args in (["show", str(path)], ["import", str(path)], ["show", "tiny"], ["list"]):
        done = mixcli(*args)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr
        assert not {"\x1b", "\x07"} & set(said), args
        assert "free" in said and max(map(len, said.splitlines())) < 400, args


def test_a_link_to_itself_is_named(home: Path, tmp_path: Path) -> None:
    loop = tmp_path / "loop.gguf"
    loop.symlink_to(loop)
    for find in (store.find, lambda text: import_model(Path(text), None, False, quiet)):
        with pytest.raises(UsageError, match=r"loop\.gguf is a symlink that leads to itself; remove it"):
            find(str(loop))
