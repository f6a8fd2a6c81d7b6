"""A slip of the fingers is met with the nearest name, and a file that is not there is bad input: exit 2, whatever asked for it."""

from pathlib import Path

import click
import pytest

from mixcli.cli import cli
from mixcli.system.os_errors import explain
from mixcli.system.text import nearest


def refused(*args: str) -> str:
    """Return the sentence that a command line is refused with, held to exit code 2."""
    with pytest.raises(Exception) as caught:
        cli.main([*args], standalone_mode=False)
    error = explain(caught.value) if type(caught.value) is FileNotFoundError else caught.value
    assert getattr(error, "exit_code", 1) == 2
    return error.message if isinstance(error, click.ClickException) else str(error)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIXCLI_HOME", str(tmp_path / "home"))
    personas = tmp_path / "home" / "config" / "personas"
    personas.mkdir(parents=True)
    (personas / "support.md").write_text("Help.")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "shape.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("run x -f note.txt", "no such file: note.txt; did you mean notes.txt?"),
        ("run x -t notse.txt", "no such file: notse.txt; did you mean notes.txt?"),
        ("run x --schema shaep.json", "no such file: shaep.json; did you mean shape.json?"),
        ("run x --grammar note.gbnf", "no such file: note.gbnf"),
        ("run x --on-overflow drop", "did you mean drop-oldest?"),
        ("run x --persona supprot", "did you mean support?"),
        ("batch -t notse.txt notes.txt", "did you mean notes.txt?"),
        ("batch --format tvs notes.txt", "did you mean tsv?"),
        ("batch notse.txt", "no such file: notse.txt; did you mean notes.txt?"),
        ("chat --persona suport", "did you mean support?"),
        ("convert notse.txt", "no such file: notse.txt; did you mean notes.txt?"),
        ("convert notes.txt --imatrix nots.txt", "no such file: nots.txt; did you mean notes.txt?"),
        ("convert notes.txt -t q4km", "did you mean Q4_K_M?"),
        ("convert notes.txt --tensor x=q4k", "did you mean Q4_K?"),
        ("quantize notes.txt Q4_KM", "did you mean Q4_K_M?"),
        ("import nots.txt", "no such file: nots.txt"),
        ("plan mixtral --kv q8", "did you mean q8_0?"),
        ("plan mixtral --profile aple-m-series", "did you mean apple-m-series?"),
        ("plan mixtral --quant q4km", "did you mean Q4_K_M?"),
        ("plan mxtral", "did you mean mixtral"),
        ("profiles show aple-m-series", "did you mean apple-m-series?"),
        ("profiles new mine --extends aple-m-series", "did you mean apple-m-series?"),
        ("pull demo:q4km", "did you mean Q4_K_M?"),
        ("pull dmeo", "did you mean demo?"),
        ("show magistral", "did you mean magistral-small?"),
        ("plan small4", "did you mean mistral-small-4?"),
    ],
)
def test_a_slip_is_met_with_the_nearest(line: str, words: str) -> None:
    assert words in refused(*line.split())


def test_a_conversation_is_found_by_a_name_nearly_right() -> None:
    from mixcli.chat.sessions import Sessions

    store = Sessions()
    store.create("weather-in-bern", "demo", "", {})
    store.close()
    assert "did you mean weather-in-bern?" in refused("sessions", "show", "wether-in-bern")


def test_what_is_near() -> None:
    assert nearest("Q4-K-M", ["Q4_K_M", "Q4_K_S"]) == "Q4_K_M", "whatever its case and signs"
    assert nearest("drop", ["drop-oldest", "error"]) == "drop-oldest", "the beginning of one"
    assert nearest("rtx", ["rtx-3090", "rtx-4090"]) is None, "the beginning of two"
    assert (
        nearest("magistral", ["mistral", "magistral-small-2509", "magistral-small"]) == "magistral-small"
    ), "the shortest with it"
    assert nearest("", ["a"]) is None
    assert nearest("x" * 10_000, ["y" * 10_000]) is None
