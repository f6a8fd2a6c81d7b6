"""The database of conversations: trees, search, names, and what is on disk when."""

import sqlite3
import stat
from pathlib import Path

import pytest

from mixcli.chat.conversation import Conversation, slug
from mixcli.chat.database import VERSION
from mixcli.chat.sessions import CUT, DONE, PARTIAL, STOPPED, Sessions, database_path
from mixcli.errors import UsageError
from mixcli.request.settings import ChatSettings
from tests.conftest import Runner


@pytest.fixture
def talk(home: Path) -> Conversation:
    return Conversation(Sessions(), "demo:Q4_K_M", "", ChatSettings())


def turn(talk: Conversation, question: str, answer: str, ids: tuple[int, ...] = ()) -> None:
    talk.ask(question)
    talk.hear(answer)
    talk.end(DONE, ids)


def other_eyes() -> list[tuple[str, str, str]]:
    """Give role, content and state of every message, as another process sees them."""
    with sqlite3.connect(database_path()) as database:
        return database.execute("SELECT role, content, state FROM message ORDER BY id").fetchall()


def test_a_turn_is_on_disk_before_and_after_the_answer(talk: Conversation) -> None:
    talk.ask("Why?")
    assert other_eyes() == [("user", "Why?", DONE), ("assistant", "", PARTIAL)]
    talk.hear("Because")
    talk.end(DONE, (7, 8, 9))
    assert other_eyes() == [("user", "Why?", DONE), ("assistant", "Because", DONE)]
    assert stat.S_IMODE(database_path().stat().st_mode) == 0o600
    again = Conversation(Sessions(), "demo:Q4_K_M", "", ChatSettings())
    again.resume(again.store.latest())
    assert again.wire() == [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because", "token_ids": [7, 8, 9]},
    ]


def test_the_ids_of_one_model_are_not_given_to_another(talk: Conversation) -> None:
    turn(talk, "Why?", "Because", (7, 8, 9))
    talk.model = "mixtral:Q4_K_M"
    assert "token_ids" not in talk.wire()[1]


def test_a_session_remembers_which_model_answers(talk: Conversation) -> None:
    talk.model = ""  # the default one, whatever that is
    talk.ask("Why?")
    assert talk.session and talk.session.model == ""
    talk.talk_with("demo:Q4_K_M")
    assert talk.session.model == Sessions().latest().model == "demo:Q4_K_M"


def test_an_answer_that_was_cut_off_is_marked_and_found(talk: Conversation) -> None:
    talk.ask("Tell me of whales")
    talk.hear("Whales are mam")
    talk._save(PARTIAL)
    assert talk.store.search("mam") == []
    store = Sessions()
    store.resume(store.latest())
    assert store.path(store.latest().head)[-1].state == CUT
    assert [hit.role for hit in store.search("whales")] == ["assistant", "user"]


def test_branches_keep_both(talk: Conversation) -> None:
    turn(talk, "One", "first")
    turn(talk, "Two", "second")
    assert talk.undo() == "Two"
    turn(talk, "Zwei", "zweitens")
    talk.retry()
    talk.hear("nochmal")
    talk.end(STOPPED)
    talk.before(1)
    turn(talk, "Eins", "erstens")
    asked = [[one.content for one in branch] for branch in talk.branches()]
    assert asked == [
        ["One", "first", "Two", "second"],
        ["One", "first", "Zwei", "zweitens"],
        ["One", "first", "Zwei", "nochmal"],
        ["Eins", "erstens"],
    ]
    talk.switch(1)
    assert [one.content for one in talk.messages] == asked[0]
    again = Conversation(Sessions(), "", "", ChatSettings())
    again.resume(again.store.latest())
    assert [one.content for one in again.messages] == asked[0]  # the branch that was looked at last
    with pytest.raises(UsageError, match="no branch 9"):
        talk.switch(9)


def test_what_got_no_answer_is_not_sent_again(talk: Conversation) -> None:
    turn(talk, "One", "first")
    talk.ask("Two")
    talk.end(STOPPED)
    talk.ask("Three")
    assert [one["content"] for one in talk.wire()] == ["One", "first", "Three"]


@pytest.mark.parametrize(
    "words", ["whale", "WHALE songs", "混合专家", "専門", '"quoted"', "a*b", "hum NEAR/2 back"]
)
def test_search(talk: Conversation, words: str) -> None:
    turn(talk, 'Whale songs, 混合专家模型, 専門家, "quoted" a*b', "hum near/2 back")
    turn(talk, "nothing of that", "no")
    hits = talk.store.search(words)
    assert len(hits) == 1 and hits[0].session == talk.name
    assert all(word.lower() in hits[0].snippet.lower() or "…" in hits[0].snippet for word in words.split())


def test_a_changed_or_removed_message_leaves_the_index(talk: Conversation) -> None:
    turn(talk, "elephant", "giraffe")
    assert talk.session
    talk.store.remove(talk.session.id)
    assert talk.store.search("elephant") == talk.store.search("giraffe") == []
    assert other_eyes() == []


def test_names(talk: Conversation, home: Path) -> None:
    turn(talk, "What's the capital of France? Tell me now!", "Paris")
    assert talk.name == "whats-the-capital-of-france"
    talk.begin_anew()
    turn(talk, "What's the capital of France?", "Paris")
    assert talk.name == "whats-the-capital-of-france-2"
    assert talk.rename("My Trip") == "my-trip"
    assert talk.store.find("my").name == "my-trip"
    with pytest.raises(UsageError, match="did you mean my-trip"):
        talk.store.find("mytrip")
    assert Sessions().find("what").name == "whats-the-capital-of-france"
    assert slug("你好，世界") == "你好-世界" and slug("?!") == ""


def test_a_newer_database_is_left_alone(talk: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    turn(talk, "One", "first")
    talk.store.close()
    with sqlite3.connect(database_path()) as database:
        database.execute(f"PRAGMA user_version = {VERSION + 1}")
    before = database_path().read_bytes()
    store = Sessions()
    assert store.in_memory and "newer version of mixcli" in capsys.readouterr().err
    turn(Conversation(store, "m", "", ChatSettings()), "Two", "second")
    assert database_path().read_bytes() == before


def test_a_torn_database_is_an_integrity_error(mixcli: Runner, home: Path) -> None:
    (home / "data").mkdir(parents=True, exist_ok=True)
    (home / "data" / "chat.db").write_bytes(b"not a database at all" * 100)
    done = mixcli("sessions")
    assert (done.returncode, "cannot be read" in done.stderr) == (5, True), done.stderr
