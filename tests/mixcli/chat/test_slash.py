"""Slash commands on a screen, settings, personas, and `mixcli sessions`."""

import json
import re
import threading
from pathlib import Path

import pytest

from mixcli.chat import clipboard
from mixcli.chat.commands.model import spread
from mixcli.chat.commands.table import ELSEWHERE, TABLE
from mixcli.chat.editor import draft_text
from mixcli.chat.files import attach, with_files
from mixcli.errors import UsageError
from mixcli.request.personas import folder, persona
from mixcli.request.settings import TABLE as SETTINGS
from mixcli.request.settings import ChatSettings
from tests.conftest import mixcli_process
from tests.mixcli.chat.conftest import Stage


def test_every_command_of_the_table_is_known_to_help(stage: Stage) -> None:
    chat = stage.chat(stage.host(["ok"]), rows=70)
    chat.enter("/help")
    chat.wait_for_prompt(2)
    for name in TABLE:
        assert name in chat.text
    chat.enter("/qiut")
    chat.wait_for("did you mean /quit")
    chat.enter("/regen")
    chat.wait_for("no such command /regen; did you mean /retry?")
    assert TABLE.keys().isdisjoint(ELSEWHERE)
    assert set(ELSEWHERE.values()) <= TABLE.keys()
    chat.enter("/quit")
    assert chat.wait_for_end() == 0


def test_commands_complete_with_tab(stage: Stage) -> None:
    chat = stage.chat(stage.host(["ok"]))
    (stage.home / "notes-for-the-model.txt").write_text("The password is swordfish.", "utf-8")
    chat.type("/exp")
    chat.wait_for(lambda: "/experts" in chat.text and "/export" in chat.text)
    chat.type("\x15/file notes")
    chat.wait_for("/file notes")
    chat.type("\t")
    chat.wait_for("notes-for-the-model.txt")
    chat.type("\r")
    chat.wait_for("is attached to the next message")
    chat.wait_for("1 file attached")


def test_help_fits_into_eighty_columns(stage: Stage) -> None:
    chat = stage.chat(stage.host(["ok"]), rows=40)
    chat.enter("/help")
    chat.wait_for_prompt(2)
    begin = chat.lines.index(">>> /help") + 1
    named = [line.split()[0] for line in chat.lines[begin : begin + len(TABLE)]]
    assert named == list(TABLE)  # one row each


def test_rows_of_settings_break_between_words(stage: Stage) -> None:
    chat = stage.chat(stage.host(["x"]), rows=60, columns=64)
    chat.enter("/set")
    chat.wait_for_prompt(2)
    lines = chat.lines[chat.lines.index(">>> /set") + 1 :]
    rows = lines[: lines.index("")]
    begun = [row.split()[0] for row in rows if not row.startswith(" ")]
    assert begun == list(SETTINGS)
    assert all(row[:30].isspace() and row[30] != " " for row in rows if row.startswith(" "))
    assert len(rows) > len(SETTINGS)


def test_ctrl_c_calls_a_command_off_and_stays(stage: Stage) -> None:
    host = stage.host(["ok"])
    chat = stage.chat(host)
    chat.enter("Go")
    chat.wait_for_prompt(2)
    host.unblocked.clear()
    chat.enter("/experts")
    chat.wait_for(host.asked.is_set)
    chat.type("meanwhile")
    chat.read(0.3)
    assert "meanwhile" not in chat.text  # kept for the next prompt
    chat.type("\x03")
    chat.wait_for("(cancelled)")
    chat.wait_for_prompt(3)
    host.unblocked.set()
    chat.enter("/experts")
    chat.wait_for("expert 3")
    chat.wait_for_prompt(4)
    chat.type("\x03")
    assert chat.wait_for_end() == 130


def test_a_message_that_is_called_off_keeps_its_files(stage: Stage) -> None:
    host = stage.host(["ok"])
    host.ready.clear()
    (stage.home / "notes.txt").write_text("swordfish", "utf-8")
    chat = stage.chat(host)
    chat.enter("/file notes.txt")
    chat.wait_for("is attached to the next message")
    chat.enter("What is this?")
    chat.wait_for(lambda: "\x1b[2mloading" in chat.raw)
    chat.type("\x03")
    chat.wait_for(lambda: chat.display[chat.screen.cursor.y] == ">>> What is this?")
    host.ready.set()
    chat.type("\r")
    chat.wait_for(chat.ready)
    assert "swordfish" in host.requests[0]["messages"][0]["content"]


def test_a_file_goes_with_the_next_message_only(stage: Stage) -> None:
    host = stage.host(["ok"])
    path = stage.home / "notes.py"
    path.write_text("x = '''```'''\n", "utf-8")
    chat = stage.chat(host)
    chat.enter("/file notes.py")
    chat.wait_for_prompt(2)
    chat.enter("What is this?")
    chat.wait_for_prompt(3)
    chat.enter("And now?")
    chat.wait_for_prompt(4)
    first, _, second = (one["content"] for one in host.requests[1]["messages"])
    assert first == "notes.py:\n````py\nx = '''```'''\n````\n\nWhat is this?"
    assert second == "And now?"
    for wrong in (stage.home, stage.home / "missing", Path("/dev/zero")):
        with pytest.raises(UsageError):
            attach(str(wrong))
    assert with_files([], "x") == "x"


def test_retry_undo_edit_and_branches(stage: Stage) -> None:
    host = stage.host(["first"], ["second"], ["third"], ["fourth"])
    editor = stage.home / "editor"
    editor.write_text(
        '#!/bin/sh\nprintf "%s, but better" "$(cat "$1")" > "$1"\nstty -a > stty.txt\n', "utf-8"
    )
    editor.chmod(0o755)
    chat = stage.chat(host, rows=60, EDITOR=str(editor), VISUAL="")
    for n, line in enumerate(["Ask", "/retry", "/undo", "Ask again", "/edit 1", "/branch"], 2):
        chat.enter(line)
        chat.wait_for_prompt(n)
    assert [request["messages"][-1]["content"] for request in host.requests] == [
        "Ask", "Ask", "Ask again", "Ask again, but better",
    ]  # fmt: skip
    assert all(len(request["messages"]) == 1 for request in host.requests)
    listed = [line for line in chat.lines if re.match(r"[ *] +\d+ +\d+ messages?", line)]
    assert [re.split("messages?", line)[1].strip() for line in listed] == [
        "Ask / first",
        "Ask / second",
        "Ask again / third",
        "Ask again, but better / fourth",
    ]
    assert listed[-1].startswith("*")
    modes = (stage.home / "stty.txt").read_text("utf-8")
    assert " icanon " in modes and " echo " in modes  # an editor finds the terminal as programs expect it
    chat.enter("/branch 2")
    chat.wait_for_prompt(8)
    chat.enter("/export json out.json")
    chat.wait_for("saved to")
    data = json.loads((stage.home / "out.json").read_text("utf-8"))
    assert [one["content"] for one in data["messages"]] == ["Ask", "second"]
    chat.enter("/undo")
    chat.wait_for_prompt(10)
    chat.enter("/export")
    chat.wait_for("this branch is empty; /branch switches to another one")


def test_a_branch_without_an_answer_is_listed_by_its_question(stage: Stage) -> None:
    chat = stage.chat(stage.host([""], ["ok"]))
    chat.enter("Ask")
    chat.wait_for_prompt(2)
    chat.enter("/branch")
    chat.wait_for_prompt(3)
    assert re.search(r"\*  1 +\d messages?  Ask$", chat.text, re.MULTILINE)


def test_ctrl_g_opens_the_editor_with_what_is_typed(stage: Stage) -> None:
    host = stage.host(["ok"])
    editor = stage.home / "editor"
    editor.write_text('#!/bin/sh\nprintf "line two\\n" >> "$1"\n', "utf-8")
    editor.chmod(0o755)
    chat = stage.chat(host, EDITOR=str(editor), VISUAL="")
    chat.type("line one ")
    chat.wait_for("line one")
    chat.type("\x07")
    chat.wait_for("line two")
    chat.type("\r")
    chat.wait_for_prompt(2)
    assert "line two" in host.requests[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("Größe\r\n".encode("utf-8-sig"), "Größe\n"),
        ("Größe".encode("utf-16"), "Größe"),
        ("Größe".encode("latin-1"), "Gr\ufffd\ufffde"),
        (b"a\0b", "a\ufffdb"),
    ],
)
def test_what_an_editor_saves_is_kept_in_any_encoding(raw: bytes, text: str) -> None:
    assert draft_text(raw) == text


def test_settings_and_system_reach_the_model_and_the_session(stage: Stage) -> None:
    host = stage.host(["ok"])
    chat = stage.chat(host, "--seed", "7", "--system", "Be brief.", rows=50)
    lines = [
        "/set temperature 0.2",
        "/set max-tokens 99",
        "Go",
        "/set temprature 1",
        "/set top_p 2",
        "/rename My Talk",
    ]
    for n, line in enumerate(lines, 2):
        chat.enter(line)
        chat.wait_for_prompt(n)
    request = host.requests[0]
    assert (request["temperature"], request["max_tokens"], request["seed"]) == (0.2, 99, 7)
    assert request["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "did you mean temperature" in chat.text and "use 0 to 1" in chat.text
    chat.type("\x04")
    chat.wait_for_end()
    again = stage.chat(host, "--resume", "my-talk")
    again.enter("Go on")
    again.wait_for_prompt(2)
    assert (
        host.requests[1]["temperature"] == 0.2 and host.requests[1]["messages"][0]["content"] == "Be brief."
    )
    assert len(host.requests[1]["messages"]) == 4


def test_another_model_goes_on_with_the_conversation(stage: Stage) -> None:
    one, other = stage.host(["from one"]), stage.host(["from the other"], name="other.gguf")
    chat = stage.chat(one)
    chat.enter("Go")
    chat.wait_for_prompt(2)
    chat.enter("/model ./other.gguf")
    chat.wait_for_prompt(3)
    chat.enter("Go on")
    chat.wait_for_prompt(4)
    assert "from the other" in chat.text
    assert [m["content"] for m in other.requests[0]["messages"]] == ["Go", "from one", "Go on"]
    assert all("token_ids" not in m for m in other.requests[0]["messages"])
    chat.enter("/model nothing")
    chat.wait_for("not found")


def test_context_experts_and_stats(stage: Stage) -> None:
    chat = stage.chat(stage.host(["one two three"]), rows=50)
    for n, line in enumerate(["Hello there", "/context", "/experts", "/stats"], 2):
        chat.enter(line)
        chat.wait_for_prompt(n)
    assert re.search(r"user +2 tokens +Hello there", chat.text)
    assert re.search(r"assistant +3 tokens +one two three", chat.text)
    assert "% of 1,000" in chat.text
    assert "expert 0" in chat.text and "62.5 %" in chat.text
    assert "40 of them cached" in chat.text
    assert spread([[1, 1], [1, 1]], 2, 1)[1].endswith("50.0 %")


def test_context_numbers_messages_as_edit_does(stage: Stage) -> None:
    never = threading.Event()
    host = stage.host([never], ["ok"])
    chat = stage.chat(host, rows=50)
    chat.enter("Unheard")
    chat.wait_for(lambda: host.requests)
    chat.type("\x03")
    chat.wait_for_prompt(2)
    chat.enter("Heard")
    chat.wait_for_prompt(3)
    chat.enter("/context")
    chat.wait_for_prompt(4)
    assert re.search(r"1 +user +dropped +Unheard", chat.text)
    assert re.search(r"2 +user +1 token +Heard", chat.text)
    assert re.search(r"total +2 tokens", chat.text)


def test_lists_that_are_empty_say_so(stage: Stage) -> None:
    chat = stage.chat(stage.host(["ok"]))
    chat.enter("/sessions")
    chat.wait_for("(no conversations yet)")
    chat.enter("/sessions xylophone")
    chat.wait_for("(no message matches 'xylophone')")


def test_a_clipboard_tool_that_hangs(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = stage.home / "xclip"
    tool.write_text("#!/bin/sh\nexec sleep 60\n", "utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stage.home}:/usr/bin:/bin")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(clipboard, "TIMEOUT", 0.2)
    with pytest.raises(UsageError, match="no clipboard found"):  # the tests' stdout is no terminal
        clipboard.copy("text")


def test_personas(home: Path) -> None:
    folder().mkdir(parents=True)
    (folder() / "support.md").write_text("You help.\n", "utf-8")
    (folder() / "poet.toml").write_text(
        'system = "Rhyme."\n[settings]\ntemperature = 1.2\nspeculate = true\n', "utf-8"
    )
    (folder() / "bad.toml").write_text('system = "x"\n[settings]\ntemperature = "hot"\n', "utf-8")
    (folder() / "torn.toml").write_text('system = "x"\nsettings = [\n', "utf-8")
    (folder() / "deep.toml").write_text("x = " + "[" * 100_000, "utf-8")
    (folder() / "date.toml").write_text("x = 2026-13-45", "utf-8")
    (folder() / "latin.toml").write_bytes('system = "é"'.encode("latin-1"))
    (folder() / "wide.md").write_text("You help.", "utf-16")
    (folder() / "mark.toml").write_text('system = "You help."\r\n', "utf-8-sig")
    (folder() / "supporr.md").mkdir()
    assert persona("support").system == "You help."
    assert persona("mark").system == "You help."
    assert persona("poet").settings == {"temperature": 1.2, "speculate": True}
    for name, sentence in (
        ("suport", "did you mean support"),
        ("torn", r"torn\.toml: it is not TOML: .*(line|end)"),
        ("bad", "invalid temperature 'hot': use 0 to 10"),
        ("deep", r"deep\.toml: it is not TOML"),
        ("date", r"date\.toml: it is not TOML"),
        ("latin", r"latin\.toml is not UTF-8 \(byte 11 is 0xE9\)"),
        ("wide", r"wide\.md is UTF-16; convert it"),
        ("../x", "not found"),
    ):
        with pytest.raises(UsageError, match=sentence):
            persona(name)


def test_a_persona_and_a_first_message(stage: Stage) -> None:
    host = stage.host(["ok"])
    place = stage.home / "config" / "personas"
    place.mkdir(parents=True)
    (place / "support.md").write_text("You help.", "utf-8")
    chat = stage.chat(host, "--persona", "support", "My printer is on fire")
    assert [one["content"] for one in host.requests[0]["messages"]] == ["You help.", "My printer is on fire"]
    chat.enter("/system none")
    chat.wait_for_prompt(2)
    chat.enter("Go on")
    chat.wait_for_prompt(3)
    assert host.requests[1]["messages"][0]["role"] == "user"


@pytest.mark.parametrize(
    ("name", "text"),
    [("temperature", "nan"), ("seed", "1.5"), ("top_k", "-1"), ("keys", "vim"), ("markdown", "x")],
)
def test_a_wrong_value_says_what_can_be_chosen(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"invalid {name}"):
        ChatSettings().with_text(name, text)
    assert ChatSettings().with_text("seed", "3").with_text("seed", "default") == ChatSettings()


def test_vi_keys(stage: Stage) -> None:
    host = stage.host(["ok"])
    chat = stage.chat(host)
    chat.enter("/set keys vi")
    chat.wait_for_prompt(2)
    chat.type("abc def")
    chat.wait_for("abc def")
    chat.type("\x1b")
    chat.read(1.0)  # the time in which an escape might begin a sequence
    chat.type("0dw")
    chat.wait_for(lambda: chat.display[chat.screen.cursor.y] == ">>> def")
    chat.type("\r")
    chat.wait_for_prompt(3)
    assert host.requests[0]["messages"][0]["content"] == "def"


def test_messages_from_a_pipe_without_an_answer_are_counted(stage: Stage) -> None:
    refusal = {"error": {"message": "too much", "type": "x", "exit_code": 4}}
    host = stage.host([refusal], ["fine"])
    done = mixcli_process(stage.home, ["chat", "-m", str(host.path)], stdin="One\nTwo\n")
    assert (done.returncode, done.stdout) == (3, "fine\n")
    assert "too much" in done.stderr and "1 message had no answer" in done.stderr


def test_commands_from_a_pipe_that_fail_are_counted(stage: Stage) -> None:
    """A file that is not there is not part of the next message; the home of a user that does not exist ended the chat."""
    host = stage.host(["fine"], ["still here"])
    typed = "One\n/file ~no-such-user/x\n/export ~no-such-user/x\n/rename\n/etc/hosts: explain\nTwo\n"
    done = mixcli_process(stage.home, ["chat", "-m", str(host.path)], stdin=typed)
    assert (done.returncode, done.stdout) == (3, "fine\nstill here\n"), done.stderr
    assert "4 commands failed; see the error after each" in done.stderr
    for words in (
        "no such file: ~no-such-user/x",
        "folder ~no-such-user does not exist",
        "/rename needs a name",
        "(// starts a message that begins with /)",
    ):
        assert words in done.stderr


def test_what_is_not_there_is_refused(stage: Stage) -> None:
    for args in (["-c"], ["--persona", "none-of-that-name"]):
        assert mixcli_process(stage.home, ["chat", *args]).returncode == 2
