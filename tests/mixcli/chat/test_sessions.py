"""The database of conversations: trees, search, names, and what is on disk when."""

import errno
import json
import sqlite3
import stat
from pathlib import Path

import pytest

from mixcli.chat.conversation import Conversation, slug
from mixcli.chat.database import VERSION, ChatDatabase, Use
from mixcli.chat.sessions import CUT, DONE, PARTIAL, STOPPED, Sessions, database_path
from mixcli.errors import UsageError
from mixcli.request.prompt import FunctionCall
from mixcli.request.settings import ChatSettings
from tests.conftest import Runner, mixcli_process
from tests.mixcli.chat.conftest import Stage


@pytest.fixture
def conversation(home: Path) -> Conversation:
    return Conversation(Sessions(), "demo:Q4_K_M", "", ChatSettings())


def turn(conversation: Conversation, question: str, answer: str, ids: tuple[int, ...] = ()) -> None:
    conversation.ask(question)
    conversation.append_delta(answer)
    conversation.end(DONE, ids)


def other_eyes() -> list[tuple[str, str, str]]:
    """Give role, content and state of every message, as another process sees them."""
    with sqlite3.connect(database_path()) as database:
        return database.execute("SELECT role, content, state FROM message ORDER BY id").fetchall()


def test_a_turn_is_on_disk_before_and_after_the_answer(conversation: Conversation) -> None:
    conversation.ask("Why?")
    assert other_eyes() == [("user", "Why?", DONE), ("assistant", "", PARTIAL)]
    conversation.append_delta("Because")
    conversation.end(DONE, (7, 8, 9))
    assert other_eyes() == [("user", "Why?", DONE), ("assistant", "Because", DONE)]
    assert stat.S_IMODE(database_path().stat().st_mode) == 0o600
    again = Conversation(Sessions(), "demo:Q4_K_M", "", ChatSettings())
    again.resume(again.store.latest())
    assert [one.to_json() for one in again.to_messages()] == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because", "token_ids": [7, 8, 9]},
    ]


def test_the_ids_of_one_model_are_not_given_to_another(conversation: Conversation) -> None:
    turn(conversation, "Why?", "Because", (7, 8, 9))
    conversation.model = "mixtral:Q4_K_M"
    assert "token_ids" not in conversation.to_messages()[1].to_json()


def test_a_session_remembers_which_model_answers(conversation: Conversation) -> None:
    conversation.model = ""  # the default one, whatever that is
    conversation.ask("Why?")
    assert conversation.session and conversation.session.model == ""
    conversation.talk_with("demo:Q4_K_M")
    assert conversation.session.model == Sessions().latest().model == "demo:Q4_K_M"


def test_an_answer_that_was_cut_off_is_marked_and_found(conversation: Conversation) -> None:
    conversation.ask("Tell me of whales")
    conversation.append_delta("Whales are mam")
    conversation._save(PARTIAL)
    assert conversation.store.search("mam") == []
    store = Sessions()
    store.resume(store.latest())
    assert store.path(store.latest().head)[-1].state == CUT
    assert [hit.role for hit in store.search("whales")] == ["assistant", "user"]


def test_branches_keep_both(conversation: Conversation) -> None:
    turn(conversation, "One", "first")
    turn(conversation, "Two", "second")
    assert conversation.undo() == "Two"
    turn(conversation, "Zwei", "zweitens")
    conversation.retry()
    conversation.append_delta("nochmal")
    conversation.end(STOPPED)
    conversation.before(1)
    turn(conversation, "Eins", "erstens")
    asked = [[one.content for one in branch] for branch in conversation.branches()]
    assert asked == [
        ["One", "first", "Two", "second"],
        ["One", "first", "Zwei", "zweitens"],
        ["One", "first", "Zwei", "nochmal"],
        ["Eins", "erstens"],
    ]
    conversation.switch(1)
    assert [one.content for one in conversation.messages] == asked[0]
    again = Conversation(Sessions(), "", "", ChatSettings())
    again.resume(again.store.latest())
    assert [one.content for one in again.messages] == asked[0]  # the branch that was looked at last
    with pytest.raises(UsageError, match="no branch 9"):
        conversation.switch(9)


def test_what_got_no_answer_is_not_sent_again(conversation: Conversation) -> None:
    turn(conversation, "One", "first")
    conversation.ask("Two")
    conversation.end(STOPPED)
    conversation.ask("Three")
    assert [one.content for one in conversation.to_messages()] == ["One", "first", "Three"]


@pytest.mark.parametrize(
    "words", ["whale", "WHALE songs", "混合专家", "専門", '"quoted"', "a*b", "hum NEAR/2 back"]
)
def test_search(conversation: Conversation, words: str) -> None:
    turn(conversation, 'Whale songs, 混合专家模型, 専門家, "quoted" a*b', "hum near/2 back")
    turn(conversation, "nothing of that", "no")
    hits = conversation.store.search(words)
    assert len(hits) == 1 and hits[0].session == conversation.name
    assert all(word.lower() in hits[0].snippet.lower() or "…" in hits[0].snippet for word in words.split())


def test_a_changed_or_removed_message_leaves_the_index(conversation: Conversation) -> None:
    turn(conversation, "elephant", "giraffe")
    assert conversation.session
    conversation.store.remove(conversation.session.id)
    assert conversation.store.search("elephant") == conversation.store.search("giraffe") == []
    assert other_eyes() == []


def test_names(conversation: Conversation, home: Path) -> None:
    turn(conversation, "What's the capital of France? Tell me now!", "Paris")
    assert conversation.name == "whats-the-capital-of-france"
    conversation.begin_anew()
    turn(conversation, "What's the capital of France?", "Paris")
    assert conversation.name == "whats-the-capital-of-france-2"
    assert conversation.rename("My Trip") == "my-trip"
    assert conversation.store.find("my").name == "my-trip"
    with pytest.raises(UsageError, match="did you mean my-trip"):
        conversation.store.find("mytrip")
    for nothing in ("", "?!"):
        with pytest.raises(UsageError, match="has no letters or digits to make a name of"):
            conversation.rename(nothing)
    conversation.store.remove(Sessions().find("my-trip").id)
    with pytest.raises(UsageError, match="conversation '' not found"):
        conversation.store.find("")  # also of the only one
    assert Sessions().find("what").name == "whats-the-capital-of-france"
    assert slug("你好，世界") == "你好-世界" and slug("?!") == ""


def test_a_newer_database_is_left_alone(
    conversation: Conversation, capsys: pytest.CaptureFixture[str]
) -> None:
    turn(conversation, "One", "first")
    conversation.store.close()
    with sqlite3.connect(database_path()) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = database_path().read_bytes()
    store = Sessions()
    assert store.in_memory and "newer version of mixcli" in capsys.readouterr().err
    turn(Conversation(store, "m", "", ChatSettings()), "Two", "second")
    assert database_path().read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE message SET parent = 4 WHERE id = 1", "the messages before message 1 are missing"),
        ("UPDATE message SET parent = 3 WHERE id = 3", "the messages before message 3 are missing"),
        ("UPDATE message SET parent = 99 WHERE id = 3", "the messages before message 3 are missing"),
        ("UPDATE session SET settings = '{'", "the settings of the conversation one cannot be read"),
        ("UPDATE session SET settings = '[1]'", "the settings of the conversation one cannot be read"),
        ("UPDATE message SET tokens = x'010203'", ""),
        ("UPDATE message SET tokens = 'text'", ""),
    ],
)
def test_a_conversation_that_was_edited_by_hand_is_read_as_far_as_it_goes(
    conversation: Conversation, mixcli: Runner, tmp_path: Path, damage: str, words: str
) -> None:
    """A message that came before itself was looked for without an end."""
    turn(conversation, "One", "first", (7, 8))
    turn(conversation, "Two", "second")
    conversation.store.close()
    with sqlite3.connect(database_path()) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(damage)
    done = mixcli("sessions", "export", "one", str(tmp_path / "one.json"))
    assert done.returncode == 0, done.stderr
    assert "second" in (tmp_path / "one.json").read_text()
    assert words in done.stderr


def test_a_result_whose_call_cannot_be_read_is_left_out(
    conversation: Conversation, mixcli: Runner, tmp_path: Path
) -> None:
    turn(conversation, "One", "first")
    conversation.add_result(FunctionCall("a1", "clock", "{}"), "noon")
    with sqlite3.connect(database_path()) as database:
        database.execute("UPDATE message SET calls = '[' WHERE role = 'tool'")
    for name in ("one.json", "one.md"):
        done = mixcli("sessions", "export", "one", str(tmp_path / name))
        assert done.returncode == 0, done.stderr
        assert "noon" in (tmp_path / name).read_text()
    conversation.resume(conversation.store.find("one"))
    assert [one.role for one in conversation.to_messages()] == ["user", "assistant"]


def test_a_torn_database_is_an_integrity_error(mixcli: Runner, home: Path) -> None:
    (home / "data").mkdir(parents=True, exist_ok=True)
    (home / "data" / "chat.db").write_bytes(b"not a database at all" * 100)
    done = mixcli("sessions")
    assert (done.returncode, "cannot be read" in done.stderr) == (5, True), done.stderr


def test_a_full_disk_is_named_as_one(conversation: Conversation) -> None:
    turn(conversation, "Why?", "Because")
    database = ChatDatabase(database_path(), Use.EDIT)
    (n_pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {n_pages}")
    with pytest.raises(OSError, match="No space left") as raised:
        database.write(lambda: database.execute("UPDATE session SET system = ?", ["x" * 100_000]))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(database_path()))
    database.close()
    assert other_eyes() == [("user", "Why?", DONE), ("assistant", "Because", DONE)]


@pytest.mark.parametrize("value", [b"\xff\0", "", "0000-00-00", "9" * 400, -5])
def test_a_database_edited_by_hand_is_read_as_far_as_it_can_be(
    conversation: Conversation, mixcli: Runner, value: object
) -> None:
    turn(conversation, "Why?", "Because")
    with sqlite3.connect(database_path()) as database:
        for table, columns in (
            ("session", ("system", "settings", "created", "used")),
            ("message", ("created", "model", "calls", "tokens")),
        ):
            for column in columns:
                database.execute(f"UPDATE {table} SET {column} = ?", (value,))
    database.close()
    for arguments in (["list"], ["list", "--json"], ["show", "why"], ["search", "because"]):
        done = mixcli("sessions", *arguments)
        assert done.returncode == 0, done.stderr
        assert "why" in done.stdout.lower()


def test_sessions_on_the_command_line(stage: Stage) -> None:
    def sessions(*args: str) -> tuple[int, str, str]:
        done = mixcli_process(stage.home, ["sessions", *args])
        return done.returncode, done.stdout, done.stderr

    assert sessions()[2].startswith("no conversations yet")
    host = stage.host(["The **answer**"])
    done = mixcli_process(
        stage.home, ["chat", "-m", str(host.path), "--system", "Be brief."], stdin="The question\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "The **answer**\n"
    done = mixcli_process(stage.home, ["chat", "-m", str(host.path), "--continue"], stdin="Again\n")
    assert done.stdout == "The **answer**\n"  # new answers only
    assert "the-question" in sessions("list")[1]
    hit, _ = json.loads(sessions("search", "answer", "--json")[1])
    assert hit["session"] == "the-question" and hit["role"] == "assistant"
    assert "## Model\n\nThe **answer**" in sessions("show", "the-question")[1]
    target = stage.home / "talk.md"
    assert sessions("export", "the-question", str(target))[0] == 0
    assert sessions("export", "the-question", str(target))[0] == 2  # never over a file that is there
    assert target.stat().st_mode & 0o077 == 0
    assert sessions("rename", "the-question", "Another name")[1] == "another-name\n"
    assert sessions("rm", "another-name")[0] == 2
    assert sessions("rm", "another-name", "--yes")[0] == 0
    assert json.loads(sessions("list", "--json")[1]) == []
    assert sessions("show", "gone")[0] == 2
