"""The chat on a screen: what is typed, what is drawn, and what never reaches the terminal."""

import re
import sys
import threading

import pytest

from tests.mixcli.chat.conftest import Stage

LINES = [f"line {i} of the long answer" for i in range(500)]


def tokens(text: str, size: int = 3) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def test_an_answer_streams_and_the_prompt_comes_back(stage: Stage) -> None:
    more = threading.Event()
    host = stage.host(["Hello", " wor", more, "ld.\n\nBye."])
    chat = stage.chat(host)
    chat.enter("Hi there")
    chat.wait_for("Hello wor")
    assert not more.is_set() and "ld." not in chat.text
    more.set()
    chat.wait_for_prompt(2)
    assert [line for line in chat.lines if line and "·" not in line] == [
        ">>> Hi there",
        "Hello world.",
        "Bye.",
        ">>>",
    ]
    assert host.requests[0]["messages"] == [{"role": "user", "content": "Hi there"}]
    assert host.requests[0]["on_overflow"] == "drop-oldest"
    chat.type("\x04")
    assert chat.wait_for_end() == 0


@pytest.mark.slow
def test_five_hundred_lines_are_in_the_scrollback_once_each(stage: Stage) -> None:
    host = stage.host(tokens("\n".join(LINES)))
    chat = stage.chat(host)
    chat.enter("Count")
    chat.wait_for_prompt(2)
    assert [line for line in chat.lines if line.startswith("line ")] == LINES


@pytest.mark.slow
def test_a_paragraph_taller_than_the_screen_loses_no_word(stage: Stage) -> None:
    words = [f"word{i}" for i in range(800)]
    host = stage.host(tokens(" ".join(words), 7))
    chat = stage.chat(host, rows=10, columns=60)
    chat.enter("Talk")
    chat.wait_for_prompt(2)
    lines = chat.lines
    begin, end = lines.index(">>> Talk") + 1, len(lines) - 1 - lines[::-1].index(">>>")
    shown = [line for line in lines[begin:end] if line and "·" not in line]
    assert " ".join(shown).split() == words
    assert all(len(line) > 45 for line in shown[:-1])  # and no row is cut short in the middle


def test_resizing_in_the_middle_of_an_answer_loses_and_doubles_nothing(stage: Stage) -> None:
    words = [f"w{i:03}" for i in range(120)]
    text = "\n".join([*LINES[:40], " ".join(words), *LINES[40:80], "| a | b |", "|---|---|", "| 1 | 2 |", ""])
    pieces = tokens(text, 5)
    first, second = threading.Event(), threading.Event()
    third = len(pieces) // 3
    host = stage.host([*pieces[:third], first, *pieces[third : 2 * third], second, *pieces[2 * third :]])
    chat = stage.chat(host)
    chat.enter("Go")
    shown = "".join(pieces[:third]).splitlines()[-1].split()[-1]
    chat.wait_for(lambda: shown in chat.text)
    chat.resize(30, 50)
    first.set()
    shown = "".join(pieces[: 2 * third]).splitlines()[-1].split()[-1]
    chat.wait_for(lambda: shown in chat.text)
    chat.resize(40, 110)
    second.set()
    chat.wait_for_prompt(2)
    assert [line for line in chat.lines if line.startswith("line ")] == LINES[:80]
    assert [
        word for line in chat.lines for word in line.split() if word[0] == "w" and word[1:].isdigit()
    ] == words
    assert [line.split() for line in chat.lines if line in ("a  b", "1  2")] == [["a", "b"], ["1", "2"]]


def test_wide_characters_and_emoji(stage: Stage) -> None:
    text = (
        "混合专家模型在每一层只使用八个专家中的两个。" * 6
        + "\n\n- 日本語の項目 🎉 ok\n- emoji 👩‍🔬 🇫🇷 ok\n- next\n"
    )
    host = stage.host(tokens(text, 2))
    chat = stage.chat(host, columns=60)
    chat.enter("你好")
    chat.wait_for_prompt(2)
    joined = "".join(chat.text.split())
    assert joined.count("混合专家模型在每一层只使用八个专家中的两个。") == 6
    assert "•日本語の項目🎉ok•emoji👩" in joined and "•next" in joined
    assert "👩‍🔬 🇫🇷 ok" in chat.raw  # pyte itself gives up behind a joiner
    assert host.requests[0]["messages"][-1]["content"] == "你好"


EVIL = (
    "a\x1b]52;c;ZXZpbA==\x07b",  # the clipboard
    "c\x1b]0;owned\x07d",  # the title
    "e\x1b[31;1mred\x1b[0mf",  # colour
    "g\x9b31mC1\x9d0;x\x9ch",  # the same in one character
    "i\x1b[2J\x1b[Hj\x1bc\x08k\r",  # wiped away
)


@pytest.mark.parametrize("how", ["", "--plain", "dumb"])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_escapes_of_a_model_never_reach_the_terminal(stage: Stage, how: str, size: int) -> None:
    host = stage.host(tokens("start " + "".join(EVIL) + " end", size))
    host.notes = ["a note\x1b]0;owned\x07"]
    args, env = (["--plain"] if how == "--plain" else [], {"TERM": "dumb"} if how == "dumb" else {})
    chat = stage.terminal("chat", "-m", str(host.path), *args, **env)
    chat.wait_for(">>>")
    chat.type("Be evil\r")
    chat.wait_for(lambda: "end" in chat.raw)
    chat.wait_for(lambda: len(chat.prompts()) >= 2)
    for forbidden in (
        "]52;c;ZXZ\x07",
        "\x1b]52",
        "\x1b]0",
        "\x07",
        "\x9b",
        "\x9d",
        "\x1b[31;1m",
        "\x1b[2J",
        "\x1bc",
    ):
        assert forbidden not in chat.raw
    assert "]52;c;ZXZpbA==b" in chat.text  # the letters are harmless and stay
    if how == "dumb":
        assert "\x1b" not in chat.raw


COLOR = re.compile(r"\x1b\[(?:[\d;]*;)?(?:3[0-8]|4[0-8]|9\d|10\d)(?:;[\d;]*)?m")
MARKDOWN = "# Head\n\n`code` and **bold**\n\n```python\nx = 1  # one\n```\n"


def test_no_color(stage: Stage) -> None:
    host = stage.host(tokens(MARKDOWN))
    colored = stage.chat(host)
    colored.enter("Go")
    colored.wait_for_prompt(2)
    assert COLOR.search(colored.raw)
    plain = stage.chat(host, NO_COLOR="1")
    plain.enter("Go")
    plain.wait_for_prompt(2)
    assert not COLOR.search(plain.raw)
    assert "Head" in plain.text and "x = 1  # one" in plain.text and "**" not in plain.text


def test_a_dumb_terminal_gets_plain_lines(stage: Stage) -> None:
    host = stage.host(tokens(MARKDOWN))
    chat = stage.terminal("chat", "-m", str(host.path), TERM="dumb")
    chat.wait_for(">>>")
    chat.type("Go\r")
    chat.wait_for(lambda: len(chat.prompts()) >= 2)
    assert "\x1b" not in chat.raw
    assert "**bold**" in chat.text
    chat.type("\x04")
    assert chat.wait_for_end() == 0


def test_answers_go_into_a_file_while_the_prompt_stays_on_the_terminal(stage: Stage) -> None:
    host = stage.host(tokens(MARKDOWN))
    chat = stage.shell(f"exec {sys.executable} -m mixcli chat -m {host.path} > answers.txt")
    chat.wait_for_prompt(1)
    chat.enter("Go")
    chat.wait_for_prompt(2)
    chat.type("\x04")
    assert chat.wait_for_end() == 0
    assert (stage.home / "answers.txt").read_text("utf-8") == MARKDOWN


def test_a_pasted_text_stays_one_message(stage: Stage) -> None:
    host = stage.host(["ok"])
    chat = stage.chat(host)
    chat.paste("first line\nsecond line\n\nfourth")
    chat.wait_for("fourth")
    assert not host.requests
    chat.type("\r")
    chat.wait_for_prompt(2)
    assert host.requests[0]["messages"][-1]["content"] == "first line\nsecond line\n\nfourth"


def test_several_lines_by_alt_enter_and_by_triple_quotes(stage: Stage) -> None:
    host = stage.host(["ok"])
    chat = stage.chat(host)
    chat.type("one\x1b\rtwo")
    chat.wait_for("two")
    chat.type("\r")
    chat.wait_for_prompt(2)
    chat.type('"""\rthree\rfour"""')
    chat.wait_for('four"""')
    chat.type("\r")
    chat.wait_for_prompt(3)
    said = [request["messages"][-1]["content"] for request in host.requests]
    assert said == ["one\ntwo", "three\nfour"]


def test_the_history_reaches_over_sessions(stage: Stage) -> None:
    host = stage.host(["ok"])
    with stage.chat(host) as chat:
        chat.enter("remember the alamo")
        chat.wait_for_prompt(2)
        chat.type("\x04")
        chat.wait_for_end()
    chat = stage.chat(host)
    chat.type("\x1b[A")
    chat.wait_for(">>> remember the alamo")
    chat.type("\x03")
    chat.wait_for(chat.ready)
    chat.type("\x12alam")  # reverse search
    chat.wait_for("remember the alamo")


def test_ephemeral_writes_nothing(stage: Stage) -> None:
    host = stage.host(["ok"])
    before = {path for path in stage.home.rglob("*") if path.is_file()}
    chat = stage.chat(host, "--ephemeral")
    chat.enter("a secret")
    chat.wait_for_prompt(2)
    chat.enter("/sessions secret")
    chat.wait_for("user: a secret")  # it is all there, in memory
    chat.wait_for(chat.ready)
    chat.type("\x04")
    chat.wait_for_end()
    written = {path for path in stage.home.rglob("*") if path.is_file()} - before
    assert not [path for path in written if b"secret" in path.read_bytes()]
    assert not (stage.home / "data" / "chat.db").exists()


def test_a_narrow_terminal_cuts_the_line_below_an_answer(stage: Stage) -> None:
    host = stage.host(["Once", threading.Event()])
    chat = stage.chat(host, columns=40)
    chat.enter("Go")
    chat.wait_for("Once")
    chat.wait_for(lambda: chat.display[chat.screen.cursor.y + 1].endswith("…"))


def test_a_full_context_is_said(stage: Stage) -> None:
    left_out = {"choices": [{"index": 0, "delta": {"content": "short"}}], "dropped_messages": 2}
    host = stage.host([left_out])
    host.n_used = 850
    chat = stage.chat(host)
    chat.enter("Go on")
    chat.wait_for_prompt(2)
    noted = "2 of the oldest messages dropped"
    assert noted in " ".join(chat.text.split())
    chat.wait_for("context 85 %, oldest turns will be dropped soon")
    chat.enter("/set overflow error")
    chat.wait_for_prompt(3)
    chat.enter("Go on")
    chat.wait_for_prompt(4)
    assert host.requests[1]["on_overflow"] == "error"
    assert " ".join(chat.text.split()).count(noted) == 1  # it is said again when more leave
    chat.enter("/context")
    chat.wait_for_prompt(5)
    assert re.search(r"1 +user +dropped +Go on\n +assistant +dropped +short\n +2 +user +2 tokens", chat.text)


def test_an_error_of_the_host_keeps_the_chat(stage: Stage) -> None:
    refusal = {"error": {"message": "the prompt has 9 tokens too many", "type": "x", "exit_code": 4}}
    host = stage.host([refusal], ["better"])
    chat = stage.chat(host)
    chat.enter("Too much")
    chat.wait_for_prompt(2)
    assert "the prompt has 9 tokens too many" in chat.text
    chat.enter("/retry")
    chat.wait_for_prompt(3)
    assert "better" in chat.text
    assert [one["content"] for one in host.requests[1]["messages"]] == ["Too much"]


def test_a_chat_begins_with_the_model_and_how_to_find_the_commands(stage: Stage) -> None:
    chat = stage.chat(stage.host(["Hello."]))
    assert chat.lines[0] == "model.gguf · profile auto · /help lists the commands · Ctrl-D quits"


def test_without_a_model_a_terminal_is_offered_one(stage: Stage) -> None:
    chat = stage.terminal("chat", "--profile", "rtx-4090", columns=200, HF_HUB_OFFLINE="1")
    chat.wait_for("Pull it now? [Y/n]:")
    assert (
        "no model is installed; `mixcli pull --profile rtx-4090` downloads mixtral:Q3_K_L, 24.2 GB"
        in chat.text
    )
    chat.type("n\n")
    chat.wait_for("Make the demo instead? [Y/n]:")
    chat.type("n\n")
    assert chat.wait_for_end() == 2
    assert chat.text.count("no model is installed") == 1
    named = stage.terminal("chat", "-m", "mistral", columns=200, HF_HUB_OFFLINE="1")
    named.wait_for("Pull mistral now? [Y/n]:")
    named.type("\n")
    assert named.wait_for_end() == 6, "the pull says that it may not ask the Hub"
    assert "mistral is not" in named.text
