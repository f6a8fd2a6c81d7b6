"""Every block of docs/recipes.md, run as it stands with the demo: the form of what comes out is held."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Runner

pytestmark = [pytest.mark.model, pytest.mark.slow]

PAGE = (ROOT / "docs" / "recipes.md").read_text("utf-8")
Check = Callable[[Path, str, str], None]

REPORT = "\n\n".join(
    f"Chapter {n}. In year {n} the company sold {n * 10} lamps in {n + 3} towns. "
    + "The river was calm and the trade was good. " * 12
    for n in range(1, 17)  # a little more than the context of the recipe holds
)
FILES = {
    "comment.txt": "What a lovely garden, thank you for the pictures!\n",
    "comments.txt": "Lovely pictures!\nYou are all idiots.\n\nWhere did you buy the lamp?\n",
    "tickets.csv": 'customer,body\n17,"I was charged twice, please help"\n18,"The app crashes\nwhen I open it"\n',
    "mails.csv": "subject,body,category\nInvoice 12,Please pay 20 euros,invoice\nBroken,The lamp arrived broken,complaint\nTwo lamps,I order two lamps,order\n",
    "report.txt": REPORT,
    "person.txt": "Anna Weber is 34 years old, lives in Bern and speaks German and French. She was born on 3 May 1990.\n",
    "greeting.txt": "Good morning, how are you?\n",
    "phrases.txt": "Good morning.\n\nThank you.\nSee you tomorrow.\n",
    "broken.jsonl": '{"text": "What a day!"}\n{"text": "It is\n{"text": "Rain again."}\n',
}


def blocks() -> dict[str, str]:
    """The shell blocks by heading; several under one are numbered."""
    found: dict[str, str] = {}
    for section in re.split(r"^## ", PAGE, flags=re.M)[1:]:
        heading = section.splitlines()[0]
        scripts = re.findall(r"^```sh\n(.*?)^```", section, flags=re.M | re.S)
        for number, script in enumerate(scripts, 1):
            found[heading if len(scripts) == 1 else f"{heading} {number}"] = script
    return found


def lines(folder: Path, name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def verdict(_folder: Path, out: str, _err: str) -> None:
    assert out in ("published\n", "blocked\n", "for a person to decide\n")


def moderated(folder: Path, _out: str, _err: str) -> None:
    found = lines(folder, "moderated.jsonl")
    assert [line["id"] for line in found] == [1, 2, 4]
    assert {line["result"] for line in found} <= {"publish", "block"}


def triage(folder: Path, _out: str, _err: str) -> None:
    found = lines(folder, "triage.jsonl")
    assert [line["customer"] for line in found] == ["17", "18"]
    for line in found:
        result = line["result"]
        assert isinstance(result, dict)
        assert result["team"] in ("billing", "technical", "sales")
        assert isinstance(result["urgent"], bool)


def categories(folder: Path, out: str, _err: str) -> None:
    assert {line["result"] for line in lines(folder, "sorted.jsonl")} <= {
        "invoice",
        "order",
        "complaint",
        "other",
    }
    assert "3 records: accuracy" in out
    assert "gold \\ answer" in out


def summary(_folder: Path, out: str, err: str) -> None:
    assert len(out.split()) > 5
    assert "combining the answers to" in err


def refusal(_folder: Path, out: str, err: str) -> None:
    assert out == "exit code 4\n"
    assert re.search(
        r"the prompt is too long: [\d,]+ tokens, [\d,]+ more than the maximum context length of 2,048", err
    )


def person(folder: Path, _out: str, _err: str) -> None:
    found = json.loads((folder / "person.json").read_text("utf-8"))
    assert isinstance(found["age"], int)
    assert isinstance(found["name"], str)
    assert all(isinstance(language, str) for language in found["languages"])
    assert set(found) <= {"name", "age", "city", "languages"}


def day(_folder: Path, out: str, _err: str) -> None:
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}\n", out)


def one_line(_folder: Path, out: str, _err: str) -> None:
    assert out.strip()
    assert out.count("\n") == 1


def five(_folder: Path, out: str, _err: str) -> None:
    assert len([line for line in out.splitlines() if line.strip()]) >= 5


def phrases(folder: Path, _out: str, _err: str) -> None:
    text = (folder / "phrases.fr.txt").read_text("utf-8")
    assert text.count("\n") == 3
    assert all(line.strip() for line in text.splitlines())


def some_failed(folder: Path, out: str, err: str) -> None:
    assert out == "ended with 3\n"
    assert "not JSON" in err
    assert ["error" in line for line in lines(folder, "answers.jsonl")] == [False, True, False]


def answered(_folder: Path, out: str, err: str) -> None:
    assert out.strip()
    assert "the text is sent to http://127.0.0.1:8089/v1" in err


CHECKS: dict[str, Check] = {
    "Moderation 1": verdict,
    "Moderation 2": moderated,
    "Ticket triage": triage,
    "Mail categories": categories,
    "Report summary 1": summary,
    "Report summary 2": refusal,
    "JSON extraction 1": person,
    "JSON extraction 2": day,
    "Git commit messages": one_line,
    "Translation 1": five,
    "Translation 2": phrases,
    "Exit codes in scripts": some_failed,
    "Another server": answered,
}


def test_every_recipe_has_a_check_and_every_check_a_recipe() -> None:
    assert list(blocks()) == list(CHECKS)


@pytest.fixture
def kitchen(warm: Runner, tmp_path: Path) -> Path:
    """A folder with the files of the recipes, and a repository with a staged change."""
    folder = tmp_path / "kitchen"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "add", "greeting.txt"], cwd=folder, check=True)
    return folder


@pytest.mark.parametrize("name", CHECKS)
def test_the_recipe_works_as_it_stands(name: str, kitchen: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", blocks()[name]],
        cwd=kitchen,
        env={**os.environ, "PATH": path, "MIXCLI_MODEL": "demo", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    CHECKS[name](kitchen, done.stdout, done.stderr)
