"""compare with records: how many answers of a small file differ, when one stops, and what is kept for a rerun."""

import json
import os
from pathlib import Path

import pytest

from mixcli.batch.record import Record
from mixcli.commands.compare import is_records
from mixcli.commands.flips import _answering
from mixcli.insight.flips import sample
from mixcli.planning.load_options import LoadOptions
from mixcli.store.store import StoredModel
from profiles.request import PlanRequest
from quantize.source import text
from tests.conftest import Runner
from tests.support.tiny_models import tiny_model

TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
QUESTION = ("--prompt", "Which?", "--choice", "red,green,blue")


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    changes = {"tokenizer.chat_template": text(TEMPLATE)}
    return tuple(
        str(tiny_model(tmp_path / f"{name}.gguf", n_expert=0, file_type=name, changes=changes))
        for name in ("F16", "Q2_K")
    )  # type: ignore[return-value]


@pytest.fixture
def records(tmp_path: Path) -> Path:
    path = tmp_path / "records.csv"
    path.write_text("text,color\n" + "".join(f"a thing of number {7 * n},red\n" for n in range(70)))
    return path


@pytest.mark.slow
def test_answers_that_differ_are_counted_and_kept(
    mixcli: Runner, home: Path, models: tuple[str, str], records: Path
) -> None:
    asked = ("compare", *models, str(records), *QUESTION, "--column", "text", "--eval", "color")
    done = mixcli(*asked, "--json")
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)
    (small,) = data["models"]
    assert (data["largest"], small["label"], small["largest"]) == (models[0], models[1], models[0])
    assert small["n_failed"] == 0
    assert small["share"]["low"] <= small["n_flips"] / small["n_records"] <= small["share"]["high"]
    assert (small["n_records"], small["decision"]) in ((64, "different"), (64, "alike")) or small[
        "n_records"
    ] == 70
    gold = small["gold"]
    assert gold["n"] == small["n_records"]
    assert gold["n_only_largest"] - gold["n_only_this"] == gold["n_right_largest"] - gold["n_right"]
    assert gold["n_only_largest"] + gold["n_only_this"] <= small["n_flips"]

    assert len(list((home / "cache" / "comparisons").glob("*.journal"))) == 2
    again = mixcli(*asked)
    assert again.returncode == 0, again.stderr
    assert "loading" not in again.stderr, "all answers are kept"
    head, row, sentence = again.stdout.splitlines()
    assert head.split("\t")[:5] == ["MODEL", "RECORDS", "DIFFERENT", "95 % INTERVAL", "DECISION"]
    assert row.split("\t")[1] == str(small["n_records"])
    assert f"{small['n_flips']} of {small['n_records']} answers differ" in sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{a}", "{b}", "{records}"], "add --choice, --schema, --regex or --grammar"),
        (["{a}", "{b}", "--choice", "x,y"], "--choice has no effect without --records; add it or remove --choice"),
        (["{a}", "{b}", "{records}", "--choice", "x,y", "--ctx", "64"], "--ctx has no effect with --records"),
        (["{a}", "{b}", "{records}", "{records}", "--choice", "x,y"], "are both records; pass one file"),
        (["{a}", "{b}", "{records}", "--choice", "red,green", "--column", "txt"], "no field 'txt'"),
        (["{a}", "{b}", "{records}", "--choice", "red,green", "--column", "text", "--eval", "colour"], "--eval: no column 'colour'"),
        (["{a}", "{b}", "--records", "{empty}", "--choice", "red,green"], "has no records; choose another file"),
        (["{a}", "{records}", "--choice", "red,green", "--column", "text"], "compare needs at least two models"),
        (["{a}", "{b}", "{records}", "--choice", "red,green", "--tolerance", "0"], "'0' is not a number above 0 and at most 1"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(
    mixcli: Runner,
    models: tuple[str, str],
    records: Path,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    names = {"a": models[0], "b": models[1], "records": str(records), "empty": str(empty)}
    done = mixcli("compare", *(one.format(**names) for one in arguments))
    assert done.returncode == 2, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_large_input_is_drawn_from_evenly_and_each_time_alike() -> None:
    every = [Record(n, {"text": str(n)}) for n in range(5000)]
    every[3] = Record(3, fault="not UTF-8")
    first, n_bad = sample(iter(every), 400)
    assert (len(first), n_bad) == (400, 1)
    assert sample(iter(every), 400)[0] == first
    places = [int(record.id) for record in first]
    assert len(set(places)) == 400
    assert 2200 < sum(places) / 400 < 2800
    assert places != sorted(places)


def test_a_pipe_of_records_is_not_read_to_see_what_it_is() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as file:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(b"text\na thing\n")
        assert is_records(f"/dev/fd/{file.fileno()}")
        assert file.read() == b"text\na thing\n"


@pytest.mark.usefixtures("home")
def test_answers_with_another_kv_cache_are_others(models: tuple[str, str]) -> None:
    stored = StoredModel(Path(models[0]))
    plain, small, again = (
        _answering(stored, LoadOptions(PlanRequest(kv=kv))).identity for kv in (None, "q8_0", None)
    )
    assert plain == again
    assert plain != small
