"""Tools in a chat: calls are shown and asked for, run, folded, kept and sent back; nothing runs without consent."""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from mixcli.chat.conversation import Conversation
from mixcli.chat.database import TABLES, Use, open_database
from mixcli.chat.export import as_data, as_markdown
from mixcli.chat.sessions import DONE, Sessions, database_path
from mixcli.chat.tool_calls import MAX_ROUNDS
from mixcli.chat.view.calls import folded, shown_call
from mixcli.request.prompt import FunctionCall
from mixcli.request.settings import ChatSettings
from tests.conftest import mixcli_process
from tests.mixcli.chat.conftest import Stage
from tests.mixcli.chat.scripted import Event, ScriptedHost
from tests.support.terminal import Terminal

FILE = '''
import time
from pathlib import Path


def weather(city: str) -> str:
    """Return the weather."""
    with open("calls.txt", "a") as file:
        file.write(city + "\\\\n")
    return "\\\\n".join(["Rain in " + city, "two", "three", "four", "five"])


def sleeps() -> str:
    """Sleep."""
    Path("asleep").touch()
    time.sleep(1000)


def fails() -> str:
    """Fail."""
    raise ValueError("the sea is dry")
'''.replace("\\\\n", "\\n")


def calls(*named: tuple[str, str]) -> list[Event]:
    """Stream calls as OpenAI does: the name first, then the arguments in two pieces."""
    events: list[Event] = []
    for i, (name, arguments) in enumerate(named):
        begun = {
            "index": i,
            "id": f"call{i:05}",
            "type": "function",
            "function": {"name": name, "arguments": ""},
        }
        pieces = [arguments[:3], arguments[3:]]
        events.append({"choices": [{"index": 0, "delta": {"tool_calls": [begun]}}]})
        events += [
            {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": i, "function": {"arguments": piece}}]}}]}
            for piece in pieces
        ]  # fmt: skip
    return events


ULM, ROM = ("weather", '{"city": "Ulm"}'), ("weather", '{"city": "Rom"}')


def chat_with_tools(stage: Stage, host: ScriptedHost, *args: str) -> Terminal:
    (stage.home / "tools.py").write_text(FILE)
    return stage.chat(host, "--tools", "tools.py", *args)


def ran(stage: Stage) -> list[str]:
    file = stage.home / "calls.txt"
    return file.read_text().split() if file.exists() else []


def results(body: dict[str, Any]) -> list[str]:
    return [one["content"] for one in body["messages"] if one["role"] == "tool"]


def test_a_call_runs_once_the_person_says_yes(stage: Stage) -> None:
    host = stage.host(["Let me look.", *calls(ULM)], ["It rains."])
    chat = chat_with_tools(stage, host)
    chat.enter("Weather?")
    chat.wait_for("Run it? [y/N/a: always weather]")
    assert 'weather(city="Ulm")' in chat.text and ran(stage) == []
    chat.enter("y")
    chat.wait_for_prompt(2)
    assert ran(stage) == ["Ulm"]
    assert "Rain in Ulm" in chat.text and "… (2 more lines)" in chat.text and "four" not in chat.text
    assert "It rains." in chat.text
    first, second = host.requests
    assert [one["function"]["name"] for one in first["tools"]] == ["weather", "sleeps", "fails"]
    question, answer, result = second["messages"]
    assert question["content"] == "Weather?"
    assert answer == {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "weather", "arguments": ULM[1]}}],
    }  # fmt: skip
    text = "Rain in Ulm\ntwo\nthree\nfour\nfive"
    assert result == {"role": "tool", "content": text, "tool_call_id": "call00000"}


def test_no_runs_nothing_and_always_asks_once(stage: Stage) -> None:
    host = stage.host(calls(ULM, ROM), ["Hm."], calls(ROM, ULM), ["Ah."])
    chat = chat_with_tools(stage, host)
    chat.enter("Weather?")
    chat.wait_for("Run it?")
    chat.type("\r")  # no is the default
    chat.wait_for(lambda: chat.text.count("Run it?") == 2)
    chat.enter("a")
    chat.wait_for_prompt(2)
    assert ran(stage) == ["Rom"]
    assert results(host.requests[1])[0] == "The user did not allow this call."
    chat.enter("Again?")
    chat.wait_for("Ah.")
    assert ran(stage) == ["Rom", "Rom", "Ulm"]
    assert chat.text.count("Run it?") == 2
    chat.wait_for_prompt(3)
    chat.enter("/tools")
    chat.wait_for("* weather")
    assert "Return the weather. (tools.py)" in chat.text


def test_what_was_typed_before_the_question_is_no_answer_to_it(stage: Stage) -> None:
    gate = threading.Event()
    host = stage.host(["Wait.", gate, *calls(ULM)], ["Fine."])
    chat = chat_with_tools(stage, host)
    chat.enter("Weather?")
    chat.wait_for("Wait.")
    chat.type("y\ry\r")
    gate.set()
    chat.wait_for("Run it?")
    assert ran(stage) == []
    chat.enter("n")
    chat.wait_for("Fine.")
    chat.wait_for(lambda: ">>> y" in chat.display)  # what was typed stands in the next prompt
    assert ran(stage) == []


def test_ctrl_c_ends_a_tool_and_the_model_is_told_later(stage: Stage) -> None:
    host = stage.host(calls(("sleeps", "{}"), ULM), ["I see."])
    chat = chat_with_tools(stage, host)
    chat.enter("Sleep!")
    chat.wait_for("Run it?")
    chat.enter("y")
    chat.wait_for((stage.home / "asleep").exists)
    chat.type("\x03")
    chat.wait_for("(stopped; the model sees this with your next message)")
    chat.wait_for_prompt(2)
    assert len(host.requests) == 1
    chat.enter("Why?")
    chat.wait_for("I see.")
    assert results(host.requests[1]) == ["The user stopped this call."] * 2
    assert host.requests[1]["messages"][-1]["content"] == "Why?"
    assert ran(stage) == []


def test_ctrl_c_at_the_question_runs_nothing(stage: Stage) -> None:
    host = stage.host(calls(ULM), ["I see."])
    chat = chat_with_tools(stage, host)
    chat.enter("Weather?")
    chat.wait_for("Run it?")
    chat.type("\x03")
    chat.wait_for_prompt(2)
    assert ran(stage) == [] and len(host.requests) == 1


def test_a_resumed_chat_has_its_calls_and_results(stage: Stage) -> None:
    host = stage.host(calls(ULM), ["It rains."], ["Bye."])
    first = chat_with_tools(stage, host, "--yes")
    first.enter("Weather?")
    first.wait_for("It rains.")
    first.wait_for_prompt(2)
    assert "Run it?" not in first.text and 'weather(city="Ulm")' in first.text
    first.type("\x04")
    assert first.wait_for_end() == 0
    second = stage.chat(host, "--continue")
    assert 'weather(city="Ulm")' in second.text and "Rain in Ulm" in second.text
    second.enter("Thanks")
    second.wait_for("Bye.")
    assert host.requests[2]["messages"][:-1] == [
        *host.requests[1]["messages"], {"role": "assistant", "content": "It rains.", "token_ids": [0]}
    ]  # fmt: skip
    assert "tools" not in host.requests[2]


def test_a_result_takes_half_of_the_context_at_most(stage: Stage) -> None:
    host = stage.host(calls(("long", "{}")), ["Long."])
    path = stage.home / "tools.py"
    path.write_text('def long() -> str:\n    """Return much."""\n    return "x" * 5000\n')
    args = ["chat", "-m", str(host.path), "--tools", str(path), "--yes"]
    assert mixcli_process(stage.home, args, "Try it").returncode == 0
    (result,) = results(host.requests[1])
    assert result == "x" * 2000 + "\n[3,000 more characters of the result are omitted]"  # of 1,000 tokens


def test_a_pipe_cannot_be_asked(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "tools.py").write_text(FILE)
    done = mixcli_process(home, ["chat", "--tools", str(home / "tools.py")], "hello")
    assert done.returncode == 2
    assert "--tools asks before each call" in done.stderr and "pass --yes to run every call" in done.stderr


def test_a_pipe_gets_the_answers_only(stage: Stage) -> None:
    host = stage.host(calls(("fails", "{}"), ("nothing", "{}")), ["It failed."])
    path = stage.home / "tools.py"
    path.write_text(FILE)
    args = ["chat", "-m", str(host.path), "--tools", str(path), "--yes"]
    done = mixcli_process(stage.home, args, "Try it")
    assert (done.returncode, done.stdout) == (0, "It failed.\n"), done.stderr
    assert "fails()\n  Error: ValueError: the sea is dry (line" in done.stderr
    assert results(host.requests[1])[1].startswith("Error: tool 'nothing' not found")


def test_a_model_that_calls_for_ever_is_stopped(stage: Stage) -> None:
    host = stage.host(calls(("fails", "{}")))
    path = stage.home / "tools.py"
    path.write_text(FILE)
    args = ["chat", "-m", str(host.path), "--tools", str(path), "--yes"]
    done = mixcli_process(stage.home, args, "Try it")
    assert done.returncode == 3, "the message has no answer"
    assert f"(stopped after {MAX_ROUNDS} answers that call tools" in done.stderr
    assert len(host.requests) == MAX_ROUNDS


def test_calls_that_a_kill_left_without_results_are_not_sent(home: Path) -> None:
    """A request with a call and no result is refused by every server."""
    conversation = Conversation(Sessions(), "demo", "", ChatSettings())
    conversation.ask("One")
    conversation.end(DONE, (), (FunctionCall("a", "f", "{}"), FunctionCall("b", "f", "{}")))
    conversation.add_result(FunctionCall("a", "f", "{}"), "1")
    again = Conversation(Sessions(), "demo", "", ChatSettings())
    again.resume(again.store.latest())
    again.ask("Two")
    assert [turn.to_json() for turn in again.to_messages()] == [{"role": "user", "content": "Two"}]


def test_an_export_has_calls_and_results(home: Path) -> None:
    conversation = Conversation(Sessions(), "demo", "", ChatSettings())
    conversation.ask("Weather?")
    call = FunctionCall("a", "weather", '{"city": "Ulm"}')
    conversation.end(DONE, (), (call,))
    conversation.add_result(call, "Rain")
    conversation.answer()
    conversation.append_delta("It rains.")
    conversation.end(DONE)
    assert conversation.session
    text = as_markdown(conversation.session, conversation.messages)
    assert '## Model\n\nCalls `weather(city="Ulm")`\n\n## Tool\n\nRain\n\n## Model' in text
    _, answer, result, _ = json.loads(json.dumps(as_data(conversation.session, conversation.messages)))[
        "messages"
    ]
    assert answer["tool_calls"] == [call.to_json()]
    assert (result["tool_call_id"], result["name"], result["content"]) == ("a", "weather", "Rain")


def test_conversations_of_the_version_before_are_taken_over(home: Path) -> None:
    path = database_path()
    with sqlite3.connect(path) as old:
        old.executescript(TABLES.replace(", calls TEXT NOT NULL DEFAULT ''", ""))
        old.execute("INSERT INTO session VALUES (1, 'old', 'demo', '', '{}', 1, '2026', '2026')")
        old.execute("INSERT INTO message VALUES (1, 1, NULL, 'user', 'Hello', 'done', x'', 'demo', '2026')")
        old.execute("PRAGMA user_version = 1")
    old.close()
    read = Sessions(Use.READ)
    assert read.path(1)[0].calls == ()
    read.close()
    store = Sessions()
    store.add(1, 1, "assistant", "", DONE, "demo", (FunctionCall("a", "f", "{}"),))
    assert [len(one.calls) for one in store.path(2)] == [0, 1]
    store.close()
    open_database(path).close()


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ('{"a": 1, "b": ["x", null]}', 'f(a=1, b=["x", null])'),
        ("", "f()"),
        ('{"a": "\\u202egnp.exe\\u001b[2K"}', 'f(a="\\u202egnp.exe\\u001b[2K")'),
        ('{"a": "x\\ny"}', 'f(a="x\\ny")'),
        ("[1]", "f [1]"),
        ("{\x1b", "f {\\u001b"),
    ],
)
def test_a_call_looks_like_what_it_is(arguments: str, shown: str) -> None:
    """What is invisible, or turns the direction of the text, must not make another call of it."""
    assert shown_call(FunctionCall("1", "f", arguments)) == shown


def test_a_long_result_is_folded() -> None:
    assert folded("one") == "  one"
    assert folded("") == "  (empty)"
    assert folded("1\n2\n3\n4") == "  1\n  2\n  3\n  … (1 more line)"
    assert folded("x" * 1000) == "  " + "x" * 238 + "… (1,000 characters)"
