"""mixcli run --tools prints the calls of a model as JSON, and does not run them."""

import json
from pathlib import Path

import pytest

from tests.conftest import Runner

pytestmark = pytest.mark.model

FILE = '''
from pathlib import Path
from typing import Literal


def weather(city: Literal["Ulm", "Rom"], days: Literal[1, 2] = 1) -> str:
    """Return the weather of a city."""
    Path("was-run").touch()
    return ""


def stop() -> None:
    """Stop."""
'''
DEFINED = [{"name": "note", "parameters": {"type": "object", "properties": {"text": {"enum": ["é"]}}, "required": ["text"]}}]  # fmt: skip


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tools.py").write_text(FILE)
    (tmp_path / "tools.json").write_text(json.dumps(DEFINED))
    (tmp_path / "long.json").write_text(json.dumps([{"name": "note", "parameters": {"properties": {"text": {"type": "string", "minLength": 200}}, "required": ["text"]}}]))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_call_is_a_line_of_json(warm: Runner, files: Path) -> None:
    done = warm("run", "--tools", str(files / "tools.py"), "--tool-choice", "weather", "Weather in Ulm?")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    call = json.loads(line)
    assert list(call) == ["name", "arguments", "id"]
    assert call["name"] == "weather" and call["arguments"]["city"] in ("Ulm", "Rom")
    assert len(call["id"]) == 9
    assert not (files / "was-run").exists()
    whole = warm(
        "run", "--json", "--tools", str(files / "tools.py"), "--tool-choice", "weather", "Weather in Ulm?"
    )
    answer = json.loads(whole.stdout)
    assert answer["finish_reason"] == "tool_calls" and answer["text"] == ""
    (told,) = answer["tool_calls"]
    assert told["function"]["name"] == "weather"
    assert json.loads(told["function"]["arguments"]).keys() == call["arguments"].keys()


def test_a_text_stays_a_text(warm: Runner, files: Path) -> None:
    plain = warm(
        "run", "What is the capital of France?", "--tools", str(files / "tools.py"), "--max-tokens", "8"
    )
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip() and not plain.stdout.startswith("{")


def test_definitions_are_enough(warm: Runner, files: Path) -> None:
    done = warm("run", "--tools", str(files / "tools.json"), "--tool-choice", "note", "Note!")
    assert done.returncode == 0, done.stderr
    assert '{"name": "note", "arguments": {"text": "é"}, ' in done.stdout  # as it is, not escaped


def test_a_call_that_is_cut_off_is_an_error(warm: Runner, files: Path) -> None:
    done = warm(
        "run", "--tools", str(files / "long.json"), "--tool-choice", "note", "--max-tokens", "24", "Note!"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the call of note was truncated" in done.stderr and "raise --max-tokens" in done.stderr


def test_a_call_that_is_cut_off_before_its_name_is_an_error_too(warm: Runner, files: Path) -> None:
    done = warm(
        "run", "--json", "--tools", str(files / "long.json"), "--tool-choice", "required", "--max-tokens", "1", "Note!"
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "the call of a tool was truncated" in done.stderr and "raise --max-tokens" in done.stderr


def test_a_tool_that_is_not_there_cannot_be_chosen(warm: Runner, files: Path) -> None:
    done = warm("run", "--tools", str(files / "tools.py"), "--tool-choice", "wether", "?")
    assert done.returncode == 2
    assert "--tool-choice: tool 'wether' not found; did you mean weather?" in done.stderr
