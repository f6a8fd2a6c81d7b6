"""The tables of the conversation database, and how to open it.

A conversation is a tree: every message knows the one before it, and a session's `head` is the leaf that is looked at. A message
that is still being written is `partial` and not yet in the search index.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

VERSION = 1
NEWER = "it was written by a newer version of mixcli"
BUSY = 10.0  # seconds to wait for another chat that writes

TABLES = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL, system TEXT NOT NULL, settings TEXT NOT NULL,
    head INTEGER, created TEXT NOT NULL, used TEXT NOT NULL
);
CREATE TABLE message (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    parent INTEGER REFERENCES message ON DELETE CASCADE, role TEXT NOT NULL, content TEXT NOT NULL, state TEXT NOT NULL,
    tokens BLOB NOT NULL DEFAULT x'', model TEXT NOT NULL, created TEXT NOT NULL
);
CREATE INDEX message_session ON message (session);
CREATE INDEX message_parent ON message (parent);
CREATE VIRTUAL TABLE message_text USING fts5 (content, content='message', content_rowid='id', tokenize='trigram');
CREATE TRIGGER message_added AFTER INSERT ON message WHEN new.state <> 'partial' BEGIN
    INSERT INTO message_text (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER message_unlisted BEFORE UPDATE OF content, state ON message WHEN old.state <> 'partial' BEGIN
    INSERT INTO message_text (message_text, rowid, content) VALUES ('delete', old.id, old.content);
END;
CREATE TRIGGER message_listed AFTER UPDATE OF content, state ON message WHEN new.state <> 'partial' BEGIN
    INSERT INTO message_text (rowid, content) VALUES (new.id, new.content);
END;
CREATE TRIGGER message_gone AFTER DELETE ON message WHEN old.state <> 'partial' BEGIN
    INSERT INTO message_text (message_text, rowid, content) VALUES ('delete', old.id, old.content);
END;
"""


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the database, made where there is none; None gives one in memory. Raises sqlite3.Error or OSError.

    The write-ahead log lets several chats share it, and a kill at any moment leaves what was committed.
    """
    if path is not None:
        path.touch(mode=0o600)
    database = sqlite3.connect(path or ":memory:", timeout=BUSY, isolation_level=None)
    try:
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA foreign_keys = ON")
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the database and write nothing, also where nothing can be written; an empty one where there is none. Raises sqlite3.Error or OSError."""
    if not path.exists():
        return open_database(None)
    try:
        database = _reader(path, "mode=ro")
    except (
        sqlite3.OperationalError
    ):  # a write-ahead log needs files beside the database, which a read-only disk has no place for
        database = _reader(path, "immutable=1")
    if database.execute("PRAGMA user_version").fetchone()[0] == 0:  # a chat is about to make its tables
        database.close()
        return open_database(None)
    return database


def _reader(path: Path, how: str) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY, isolation_level=None
    )
    try:
        database.row_factory = sqlite3.Row
        if database.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            raise sqlite3.DatabaseError(NEWER)
    except BaseException:
        database.close()
        raise
    return database


def _migrate(database: sqlite3.Connection) -> None:
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise sqlite3.DatabaseError(NEWER)
    if version < VERSION:
        # executescript commits automatically; two chats that start at once: the second finds the tables there
        database.execute("BEGIN IMMEDIATE")
        try:
            if database.execute("PRAGMA user_version").fetchone()[0] == 0:
                for statement in _statements(TABLES):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {VERSION}")
            database.execute("COMMIT")
        except BaseException:
            database.execute("ROLLBACK")
            raise


def copy_session(source: sqlite3.Connection, target: sqlite3.Connection, session: int) -> None:
    """Copy one session with its messages, under the same ids, into an empty database."""
    for table, column in (("session", "id"), ("message", "session")):
        rows = source.execute(f"SELECT * FROM {table} WHERE {column} = ? ORDER BY id", (session,))
        for row in rows:
            marks = ", ".join("?" * len(row))
            target.execute(f"INSERT INTO {table} VALUES ({marks})", tuple(row))


def _statements(script: str) -> Iterable[str]:
    """Split a script at the ends of its statements; triggers contain semicolons of their own."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
