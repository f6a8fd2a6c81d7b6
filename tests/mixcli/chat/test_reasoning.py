"""A chat shows what a model writes before its answer dimmed, and leaves one line of it."""

import threading

from tests.mixcli.chat.conftest import Stage


def thinks(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"reasoning_content": text}, "finish_reason": None}]}


def test_reasoning_is_shown_while_it_comes_and_then_folded(stage: Stage) -> None:
    gate = threading.Event()
    host = stage.host([thinks("First I count.\nThen"), thinks(" I add."), gate, "It is **two**."], ["Yes."])
    chat = stage.chat(host)
    chat.enter("1 + 1?")
    chat.wait_for("Then I add.")
    gate.set()
    chat.wait_for_prompt(2)
    screen = "\n".join(chat.lines)
    assert "(6 words of reasoning)" in screen
    assert "It is two." in screen
    assert "Then I add." not in screen
    chat.enter("Sure?")
    chat.wait_for("Yes.")
    assert [one["content"] for one in host.requests[1]["messages"]] == ["1 + 1?", "It is **two**.", "Sure?"]
