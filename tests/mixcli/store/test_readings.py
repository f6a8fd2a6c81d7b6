"""How a name on the command line is read: names of the store first, paths only where they look like paths, a sentence for the rest."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixcli.errors import UsageError
from mixcli.store import store
from mixcli.store.reference import check_name, usable_name
from tests.conftest import Runner
from tests.support import small_gguf

MODEL = small_gguf.gguf()


@pytest.fixture
def here(mixcli: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and a store with the model tiny:F16 that came from elsewhere."""
    source = small_gguf.write(tmp_path / "elsewhere/tiny.F16.gguf", MODEL)
    assert mixcli("import", str(source)).returncode == 0
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("text", ["tiny", "tiny:F16", "tiny:f16"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_a_name_of_the_store_wins_over_a_file_of_that_name(here: Path, text: str, is_folder: bool) -> None:
    (here / text).mkdir() if is_folder else (here / text).write_bytes(b"no model")
    assert store.find(text).label == "tiny:F16"


@pytest.mark.parametrize(
    "args",
    [
        ("show", "tiny", "--json"),
        ("verify", "tiny"),
        ("plan", "tiny", "--ram", "4GiB"),
        ("default", "tiny"),
        ("pull", "tiny"),
        ("rm", "tiny", "-y"),
    ],
)
def test_every_command_reads_it_so(mixcli: Runner, here: Path, args: tuple[str, ...]) -> None:
    (here / "tiny").mkdir() if args[0] == "pull" else small_gguf.write(here / "tiny", b"no model")
    done = mixcli(*args)
    assert done.returncode == 0, done.stderr
    assert (here / "tiny").exists()


def test_a_path_says_that_it_is_one(here: Path) -> None:
    for name in ("plain.gguf", "PLAIN.GGUF", "tiny", "sub/tiny"):
        small_gguf.write(here / name, MODEL)
    for text in ("plain.gguf", "./plain.gguf", "PLAIN.GGUF", "./tiny", "sub/tiny", str(here / "tiny")):
        found = store.find(text)
        assert (found.manifest, found.path) == (None, here / text), text
    with pytest.raises(UsageError, match=r"for the file or folder of that name use \./other"):
        small_gguf.write(here / "other", MODEL)
        store.find("other")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "name is empty"),
        ("  ", "name is empty"),
        ("TINY", "did you mean tiny?"),
        ("tinny", "did you mean tiny?"),
        ("tiny:F61", "did you mean tiny:F16?"),
        ("tiny:", "has no quant after the colon; did you mean tiny?"),
        ("tiny@", "has no revision after the @"),
        ("tiny@v2", "remove @v2"),
        (":F16", "is not a model name"),
        ("tiny/", "did you mean tiny?"),
        ("a/b/c", "use the form org/name"),
        ("./tiny", "did you mean the model tiny?"),
        ("./plain.ggfu.gguf", "did you mean ./plain.gguf?"),
        ("..", "is a folder"),
        ("/dev/null", "a device or a pipe"),
        ("C:\\models\\tiny.gguf", "no such file: C:\\"),
        ("C:\\models\\tiny", "quant"),
        ("tiny:F16:Q8", "quant"),
        ("größe mit blank", "`mixcli list` shows"),
        ("x" * 5000, "5,000 characters"),
        ("n" * 300, "`mixcli list` shows"),
        ("-", "`mixcli list` shows"),
        ("mixtral:Q4_K_M", "run `mixcli pull mixtral:Q4_K_M`"),
        ("Mixtral", "did you mean mixtral?"),
        ("org/repo", "run `mixcli pull org/repo`, which chooses the quant that suits this machine"),
        ("~nobody-here/x.gguf", "no such file"),
    ],
)
def test_what_is_nothing_is_one_sentence(here: Path, text: str, words: str) -> None:
    small_gguf.write(here / "plain.gguf", MODEL)
    with pytest.raises(UsageError) as caught:
        store.find(text)
    said = str(caught.value)
    assert words in said
    assert len(said) < 400
    assert "None" not in said


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a:b",
        "a@b",
        "-x",
        ".x",
        "~x",
        "a/b/c",
        "../x",
        "x\n",
        "\x1b[2J",
        "x.gguf",
        "é" * 65,
        " x",
        "a\\b",
        "\ud800",
        "x.",
        "a*b",
        'a"b',
        "nul",
        "Com1.q",
        "org/aux",
    ],
)
def test_a_name_that_could_not_be_typed_is_not_given(mixcli: Runner, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert "use letters" in str(caught.value)
    assert check_name(usable_name(name))


@settings(max_examples=50)
@given(st.text())
def test_a_name_is_made_of_any_text(name: str) -> None:
    made = usable_name(name)
    assert check_name(made) == made == usable_name(made)


def test_names_that_are_one_file_elsewhere_are_one_name(mixcli: Runner, tmp_path: Path) -> None:
    file = str(small_gguf.write(tmp_path / "m.F16.gguf", MODEL))
    one, two = unicodedata.normalize("NFC", "größe"), unicodedata.normalize("NFD", "größe")
    assert mixcli("import", file, "--name", one).returncode == 0
    assert "already installed" in mixcli("import", file, "--name", two).stderr
    assert json.loads(mixcli("show", two, "--json").stdout)["model"] == f"{one}:F16"
    for how in (["import", file], ["pull", "org/repo"]):
        done = mixcli(*how, "--name", "GRößE")
        assert (
            done.returncode,
            "differs from the model größe only in case" in done.stderr,
        ) == (2, True)
    assert len(json.loads(mixcli("list", "--json").stdout)) == 1
    assert mixcli("rm", "-y", two).returncode == 0


def test_names_that_are_given_can_be_found(mixcli: Runner, tmp_path: Path) -> None:
    file = str(small_gguf.write(tmp_path / "My (best) Modell: größe.F16.gguf", MODEL))
    assert mixcli("import", file).returncode == 0
    for name in ("my model", "größe", "org/name", "A.b_c-1"):
        assert mixcli("import", file, "--name", name).returncode == 0
        assert json.loads(mixcli("show", name, "--json").stdout)["model"] == f"{name}:F16"
    for model in json.loads(mixcli("list", "--json").stdout):
        assert store.find(model["model"]).label == model["model"]
    for name in ("a:b", "../x", "x.gguf"):
        done = mixcli("import", file, "--name", name)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
