"""Functions of a file as tools: what a model is told of them, and how calls end."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixcli.errors import UsageError
from mixcli.request.prompt import FunctionCall
from mixcli.system.process_state import born
from mixcli.tools import python_file
from mixcli.tools.python_file import PythonTools
from mixcli.tools.toolbox import MAX_RESULT, Toolbox
from tests.support.waiting import wait_for

FILE = '''
"""Tools for tests."""

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from datetime import date
from typing import Literal

import beside

COUNT = 0


@dataclass
class Place:
    x: int
    y: float = 0.0


def weather(city: str, unit: Literal["C", "F"] = "C", day: date | None = None) -> dict[str, object]:
    """Return the weather.

    Args:
        city: Name of the city.
    """
    print("a print is no result")
    return {"city": city, "unit": unit, "day": day}


def move(to: Place) -> Place:
    """Move."""
    return Place(to.x + beside.STEP, to.y)


async def later(n: int) -> str:
    """Return a text."""
    await asyncio.sleep(0)
    return "x" * n


def count() -> int:
    """Count the calls."""
    global COUNT
    COUNT += 1
    return COUNT


def fails() -> None:
    """Fail."""
    raise ValueError("the sea is dry")


def reads() -> str:
    """Read stdin, and a variable."""
    return sys.stdin.read() + os.environ.get("MY_KEY", "") + os.environ.get("HF_TOKEN", "")


def hangs(pid_file: str) -> None:
    """Wait for longer than anybody does, with a child."""
    import subprocess
    child = subprocess.Popen(["sleep", "1000"])
    with open(pid_file, "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)


def dies() -> None:
    """End the process."""
    os._exit(3)


def undocumented(n: int) -> int: ...


def untyped(n):
    """Have no type."""


def _private(n: int) -> int:
    """Be nobody's business."""
'''


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonTools]:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "beside.py").write_text("STEP = 1\n")
    (folder / "json.py").write_text("raise RuntimeError('a library is meant')\n")
    path = folder / "my-tools.py"
    path.write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_secret")
        patch.setenv("MY_KEY", "mine")
        tools = PythonTools(path)
    yield tools
    tools.close()


def called(tools: PythonTools, name: str, arguments: str = "{}") -> tuple[str, bool]:
    result = Toolbox([tools]).call(FunctionCall("a", name, arguments))
    return result.text, result.is_error


def test_a_function_is_described_by_its_signature_and_docstring(tools: PythonTools) -> None:
    assert [spec.name for spec in tools.specs] == [
        "weather", "move", "later", "count", "fails", "reads", "hangs", "dies"
    ]  # fmt: skip
    assert tools.specs[0].to_json() == {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "Return the weather.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "Name of the city."},
                    "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                    "day": {
                        "anyOf": [{"format": "date", "type": "string"}, {"type": "null"}],
                        "default": None,
                    },
                },
                "required": ["city"],
                "additionalProperties": False,
            },
        },
    }
    assert tools.notes == [
        "my-tools.py: undocumented has no docstring, so it is not a tool",
        "my-tools.py: untyped has no type hint for n, so it is not a tool",
    ]


def test_a_call_gets_what_the_function_returns(tools: PythonTools) -> None:
    assert called(tools, "weather", '{"city": "Ulm", "day": "2026-01-02"}') == (
        '{"city":"Ulm","unit":"C","day":"2026-01-02"}', False
    )  # fmt: skip
    assert called(tools, "move", '{"to": {"x": 1}}') == ('{"x":2,"y":0.0}', False)
    assert called(tools, "later", '{"n": 3}') == ("xxx", False)
    assert called(tools, "reads") == ("mine", False)  # no stdin, and nothing of mixcli's own


def test_what_goes_wrong_is_told_to_the_model(tools: PythonTools) -> None:
    assert called(tools, "weather", '{"unit": "K"}') == (
        "Error: city: Missing required argument; unit: Input should be 'C' or 'F'", True
    )  # fmt: skip
    text, is_error = called(tools, "fails")
    assert is_error and text.startswith("Error: ValueError: the sea is dry (line ")
    assert called(tools, "weather", '{"city": ') == (
        "Error: the arguments are not JSON: Expecting value: line 1 column 10 (char 9)", True
    )  # fmt: skip
    assert called(tools, "weather", "[1]") == ("Error: the arguments are not a JSON object", True)
    assert called(tools, "wether")[0] == "Error: tool 'wether' not found; did you mean weather?"


def test_a_result_longer_than_any_context_is_cut_and_says_so(tools: PythonTools) -> None:
    text, _ = called(tools, "later", f'{{"n": {MAX_RESULT + 7}}}')
    assert text == "x" * MAX_RESULT + "\n[7 more characters of the result are omitted]"


def test_a_file_keeps_its_state_between_calls_until_its_process_ends(tools: PythonTools) -> None:
    assert [called(tools, "count")[0] for _ in range(2)] == ["1", "2"]
    assert called(tools, "dies") == ("Error: its process crashed: exit code 3", True)
    assert called(tools, "count") == ("1", False)


def test_a_call_that_is_interrupted_takes_its_process_and_children_along(
    tools: PythonTools, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"

    def interrupt() -> None:
        while not (pid_file.exists() and pid_file.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        called(tools, "hangs", f'{{"pid_file": "{pid_file}"}}')
    wait_for(lambda: not born(int(pid_file.read_text())))
    assert called(tools, "count") == ("1", False)


def test_a_call_has_an_end(tools: PythonTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_file, "CALL_SECONDS", 0.2)
    text = called(tools, "hangs", f'{{"pid_file": "{tmp_path / "pid"}"}}')[0]
    assert text == "Error: no result after 0 s; it was stopped"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0\n", r"cannot be imported: ZeroDivisionError: division by zero \(line 1\)"),
        ("def f(:\n", "cannot be imported: SyntaxError"),
        ("import os\nos._exit(1)\n", "cannot be imported: its process crashed: exit code 1"),
        ("X = 1\n", "has no tools; define a public function with type hints and a docstring"),
        ("def f(x: float = float('nan')):\n  'd'\n", r"has no tools \(f has a default that is not JSON: NaN"),
        ("def f(n: int): ...\n", r"has no tools \(f has no docstring\)"),
    ],
)
def test_a_file_without_tools_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "tools.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        PythonTools(path)


def test_a_file_that_changes_is_told_where_its_process_starts_again(tmp_path: Path) -> None:
    path, dies = tmp_path / "mine.py", "import os\ndef die() -> None:\n    'Die.'\n    os._exit(3)\n"
    path.write_text(dies)
    tools = PythonTools(path)
    for text, message in (
        (dies, "its process crashed: exit code 3"),
        ("def other() -> None:\n    'Other.'\n", "Error: die is no longer in mine.py"),
        ("def broken(", "cannot be imported any more: SyntaxError: '(' was never closed"),
        (dies, "its process crashed: exit code 3"),
    ):
        path.write_text(text)
        if text is not dies:
            tools.close()  # as after a crash
        assert message in called(tools, "die")[0]
    tools.close()
