"""Conversations on disk: saved before and after each answer, searchable, with all branches.

Where the disk fails, the current conversation continues in memory, with one note; nothing else in the chat notices.
"""

import json
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mixcli.chat.database import ChatDatabase, Use
from mixcli.errors import UsageError
from mixcli.request.prompt import FunctionCall
from mixcli.system import paths
from mixcli.system.console import console
from mixcli.system.text import clean, did_you_mean

PARTIAL, DONE, STOPPED, CUT, FAILED = "partial", "done", "stopped", "cut", "failed"
SHORTEST = 3  # characters that the search index needs; shorter words are looked for one by one


@dataclass(frozen=True)
class StoredMessage:
    """One turn; `state` says how it ended, `token_ids` are the sampled ones where the whole answer came.

    An answer may have `calls` of tools; a message of the role tool is the result of its one call.
    """

    id: int
    parent: int | None
    role: str
    content: str
    state: str
    token_ids: tuple[int, ...]
    model: str
    created: str
    calls: tuple[FunctionCall, ...] = ()


@dataclass(frozen=True)
class Session:
    """A conversation; `head` is the last message of the branch that is looked at."""

    id: int
    name: str
    model: str
    system: str
    settings: Mapping[str, Any]
    head: int | None
    created: str
    used: str
    n_messages: int


@dataclass(frozen=True)
class Hit:
    """A message that was searched for, with the words around the place."""

    session: str
    message: int
    role: str
    created: str
    snippet: str


class Sessions:
    """All conversations; `ephemeral` keeps them in memory only.

    What they are opened for decides what happens where the disk refuses: see ChatDatabase.
    """

    def __init__(self, use: Use = Use.CHAT, *, ephemeral: bool = False) -> None:
        self._database = ChatDatabase(None if ephemeral else database_path(), use)

    @property
    def in_memory(self) -> bool:
        """Return whether nothing is saved: as was asked for, or because the disk refuses."""
        return self._database.in_memory

    def close(self) -> None:
        """Close the database; all messages are committed already."""
        self._database.close()

    # sessions

    def create(self, name: str, model: str, system: str, settings: Mapping[str, Any]) -> Session:
        """Begin a conversation; a name that is taken gets a number."""

        def act() -> int:
            row = _row(self._free(name), model, system, json.dumps(settings), now(), now())
            done = self._database.execute(
                "INSERT INTO session (name, model, system, settings, created, used) VALUES (?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(done.lastrowid or 0)

        session = self._database.session = self._database.write(act)
        return self.get(session)

    def get(self, session: int) -> Session:
        """Return a session by its number."""
        return self._sessions("WHERE session.id = ?", session)[0]

    def all(self) -> list[Session]:
        """List all sessions, the one that was used last first."""
        return self._sessions("")

    def latest(self) -> Session:
        """Return the session that was used last; UsageError when there is none."""
        found = self._sessions("", limit=1)
        if not found:
            raise UsageError("no conversation to continue; start one with `mixcli chat`")
        return found[0]

    def find(self, name: str) -> Session:
        """Return a session by its name, or by the beginning of it; UsageError names the nearest."""
        have = self.all()
        if found := next((one for one in have if one.name == name), None):
            return found
        begun = [one for one in have if name and one.name.startswith(name)]
        if len(begun) == 1:
            return begun[0]
        hint = did_you_mean(name, [one.name for one in have], "`mixcli sessions` lists them")
        if begun:
            hint = f"did you mean {' or '.join(one.name for one in begun[:3])}?"
        raise UsageError(f"conversation {name!r} not found; {hint}")

    def resume(self, session: Session) -> None:
        """Resume a session: mark an answer that a kill interrupted, and update its time of last use."""
        self._database.session = session.id

        def act() -> None:
            self._database.execute(
                "UPDATE message SET state = ? WHERE session = ? AND state = ?", (CUT, session.id, PARTIAL)
            )
            self._database.execute("UPDATE session SET used = ? WHERE id = ?", (now(), session.id))

        self._database.write(act)

    def rename(self, session: int, name: str) -> str:
        """Rename a session and return its new name."""

        def act() -> str:
            free = self._free(name, session)
            self._database.execute("UPDATE session SET name = ? WHERE id = ?", _row(free, session))
            return free

        return self._database.write(act)

    def configure(self, session: int, model: str, system: str, settings: Mapping[str, Any]) -> None:
        """Remember what a session is talked with."""
        row = _row(model, system, json.dumps(settings), session)
        self._database.write(
            lambda: self._database.execute(
                "UPDATE session SET model = ?, system = ?, settings = ? WHERE id = ?", row
            )
        )

    def remove(self, session: int) -> None:
        """Delete a session with all its messages."""
        self._database.write(lambda: self._database.execute("DELETE FROM session WHERE id = ?", (session,)))

    # messages

    def add(
        self,
        session: int,
        parent: int | None,
        role: str,
        content: str,
        state: str,
        model: str,
        calls: Sequence[FunctionCall] = (),
    ) -> StoredMessage:
        """Add a message after `parent` and make it the head."""
        created = now()
        row = _row(session, parent, role, content, state, model, created, _written(calls))

        def act() -> int:
            done = self._database.execute(
                "INSERT INTO message (session, parent, role, content, state, model, created, calls) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            self._look_at(session, done.lastrowid)
            return int(done.lastrowid or 0)

        added = self._database.write(act)
        return StoredMessage(added, parent, role, content, state, (), model, created, tuple(calls))

    def update(self, message: StoredMessage) -> None:
        """Write what a message has become; only a finished one is synced to the disk."""
        tokens = array("I", message.token_ids).tobytes()
        row = _row(message.content, message.state, tokens, message.model, _written(message.calls), message.id)
        self._database.write(
            lambda: self._database.execute(
                "UPDATE message SET content = ?, state = ?, tokens = ?, model = ?, calls = ? WHERE id = ?",
                row,
            ),
            durable=message.state != PARTIAL,
        )

    def look_at(self, session: int, head: int | None) -> None:
        """Make a message, or the empty beginning, the head of the session."""
        self._database.write(lambda: self._look_at(session, head))

    def path(self, head: int | None) -> list[StoredMessage]:
        """Return the messages from the beginning to `head`; in a damaged database those that are left, with a warning."""
        rows = self._database.execute(  # a message is older than its answers, so that no circle is walked
            "WITH RECURSIVE line (id, parent, depth) AS ("
            " SELECT id, parent, 0 FROM message WHERE id = ?"
            " UNION ALL SELECT message.id, message.parent, depth + 1 FROM message JOIN line"
            " ON message.id = line.parent AND message.id < line.id)"
            " SELECT message.* FROM message JOIN line USING (id) ORDER BY depth DESC",
            (head,),
        )
        found = [_message(row) for row in rows]
        if found and found[0].parent is not None:
            console.warn(
                f"the database of conversations is damaged: the messages before message {found[0].id} are missing; the rest is shown"
            )
        return found

    def leaves(self, session: int) -> list[StoredMessage]:
        """Return the last message of every branch, in the order in which they were written."""
        rows = self._database.execute(
            "SELECT * FROM message WHERE session = ? AND id NOT IN"
            " (SELECT parent FROM message WHERE session = ? AND parent IS NOT NULL) ORDER BY id",
            (session, session),
        )
        return [_message(row) for row in rows]

    def search(self, text: str, limit: int = 50) -> list[Hit]:
        """Find the messages that contain every word of `text`, the newest first."""
        words = clean(text).split()
        long = [word.replace('"', '""') for word in words if len(word) >= SHORTEST]
        like = [word for word in words if len(word) < SHORTEST]
        where = ["message_text MATCH ?"] if long else []
        where += ["instr(lower(message.content), lower(?)) > 0"] * len(like)
        if not where:
            raise UsageError("no search words; use: mixcli sessions search WORDS")
        given: list[Any] = [" AND ".join(f'"{word}"' for word in long)] if long else []
        snippet = (
            "snippet(message_text, 0, '', '', '…', 40)"
            if long
            else "substr(replace(message.content, char(10), ' '), 1, 80)"
        )
        rows = self._database.execute(
            f"SELECT session.name, message.id, role, message.created, {snippet} AS snippet FROM message_text"
            " JOIN message ON message.id = message_text.rowid JOIN session ON session.id = message.session"
            f" WHERE {' AND '.join(where)} ORDER BY message.id DESC LIMIT ?",
            (*given, *like, limit),
        )
        return [Hit(row[0], row[1], row[2], row[3], " ".join(str(row[4]).split())) for row in rows]

    # helpers

    def _sessions(self, where: str, *given: Any, limit: int = -1) -> list[Session]:
        rows = self._database.execute(
            "SELECT session.*, (SELECT count(*) FROM message WHERE message.session = session.id) AS n FROM session"
            f" {where} ORDER BY used DESC, id DESC LIMIT ?",
            (*given, limit),
        )
        return [
            Session(
                row["id"], row["name"], row["model"], row["system"], _settings(row), row["head"],
                row["created"], row["used"], row["n"],
            )
            for row in rows
        ]  # fmt: skip

    def _free(self, name: str, owner: int | None = None) -> str:
        taken = {one.name for one in self.all() if one.id != owner}
        number, free = 1, name
        while free in taken:
            number += 1
            free = f"{name}-{number}"
        return free

    def _look_at(self, session: int, head: int | None) -> None:
        self._database.execute("UPDATE session SET head = ?, used = ? WHERE id = ?", (head, now(), session))


def database_path() -> Path:
    """Return where the conversations are kept."""
    return paths.data_dir() / "chat.db"


def now() -> str:
    """Return the current time as the database keeps it: UTC, sortable."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _row(*values: Any) -> tuple[Any, ...]:
    """Return values as the database takes them: its texts are UTF-8."""
    return tuple(clean(value) if isinstance(value, str) else value for value in values)


def _settings(row: sqlite3.Row) -> dict[str, Any]:
    """Return the settings of a conversation; the defaults, with a warning, where they cannot be read."""
    try:
        found = json.loads(row["settings"])
    except (ValueError, TypeError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found
    console.warn(f"the settings of the conversation {row['name']} cannot be read; the defaults are used")
    return {}


def _ids(raw: object) -> "array[int]":
    """Return token ids; none where they are damaged, and the text is tokenized again."""
    ids = array("I")
    if isinstance(raw, bytes) and len(raw) % ids.itemsize == 0:
        ids.frombytes(raw)
    return ids


def _message(row: sqlite3.Row) -> StoredMessage:
    ids = _ids(row["tokens"])
    return StoredMessage(
        row["id"],
        row["parent"],
        row["role"],
        row["content"],
        row["state"],
        tuple(ids),
        row["model"],
        row["created"],
        _read(row["calls"] if "calls" in row.keys() else ""),  # noqa: SIM118  a row is not a mapping
    )


def _written(calls: Sequence[FunctionCall]) -> str:
    return json.dumps([one._asdict() for one in calls]) if calls else ""


def _read(text: str) -> tuple[FunctionCall, ...]:
    """Return the calls of a message; none where they cannot be read."""
    try:
        calls = tuple(FunctionCall(**one) for one in json.loads(text)) if text else ()
    except (ValueError, TypeError, RecursionError):
        return ()
    return calls if all(isinstance(word, str) for call in calls for word in call) else ()
