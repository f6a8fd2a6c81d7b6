"""The database of conversations: its tables, how to open it, and how to continue in memory where the disk fails.

A conversation is a tree: every message knows the one before it, and a session's `head` is the leaf that is looked at. A message
that is still being written is `partial` and not yet in the search index.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from mixcli.errors import IntegrityError, MixcliError
from mixcli.system.console import console

T = TypeVar("T")
VERSION = 2
NEWER = "it was written by a newer version of mixcli"
MIN_FREE = 1 << 16  # bytes: SQLite needs 32 KiB beside the database
NUMBERS = {"head", "parent", "session"}  # columns that refer to a row, or to none
BUSY = 10.0  # seconds to wait for another chat that writes

TABLES = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, model TEXT NOT NULL, system TEXT NOT NULL, settings TEXT NOT NULL,
    head INTEGER, created TEXT NOT NULL, used TEXT NOT NULL
);
CREATE TABLE message (
    id INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES session ON DELETE CASCADE,
    parent INTEGER REFERENCES message ON DELETE CASCADE, role TEXT NOT NULL, content TEXT NOT NULL, state TEXT NOT NULL,
    tokens BLOB NOT NULL DEFAULT x'', model TEXT NOT NULL, created TEXT NOT NULL, calls TEXT NOT NULL DEFAULT ''
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


# migrates a database of each older version to the next
UPGRADES = {1: "ALTER TABLE message ADD COLUMN calls TEXT NOT NULL DEFAULT ''"}


class Use(Enum):
    """What the conversations are opened for."""

    CHAT = "chat"
    READ = "read"
    EDIT = "edit"


class ChatDatabase:
    """An open database; a path of None keeps it in memory.

    For a CHAT it continues in memory where the disk refuses, with `session` and a sentence. To READ nothing is written; to EDIT something must
    be, so that MixcliError or OSError says what stands in the way.
    """

    def __init__(self, path: Path | None, use: Use) -> None:
        self.in_memory = path is None
        self.session: int | None = None  # the one that is taken along into memory
        self._path, self._use = path, use
        try:
            self._connection = open_to_read(path) if path and use is Use.READ else open_database(path)
        except (sqlite3.Error, OSError) as error:
            if use is not Use.CHAT:
                raise self._refusal(error) from error
            self._warn(error)
            self.in_memory = True
            self._connection = open_database(None)

    def close(self) -> None:
        """Close the database; all that was written is committed already."""
        self._connection.close()

    def execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        """Run one statement; one that writes belongs in `write`."""
        return self._connection.execute(sql, tuple(values))

    def write(self, act: Callable[[], T], *, durable: bool = True) -> T:
        """Run what writes in one transaction; where the disk refuses, once more in memory."""
        try:
            return self._transaction(act, durable)
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if self.in_memory:
                raise
            if self._use is not Use.CHAT:
                raise self._refusal(error) from error
            self._continue_in_memory(error)
            return self._transaction(act, durable)

    def _transaction(self, act: Callable[[], T], durable: bool) -> T:
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            value = act()
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        return value

    def _continue_in_memory(self, error: Exception) -> None:
        memory = open_database(None)
        if self.session is not None:
            copy_session(self._connection, memory, self.session)
        self._connection.close()
        self._connection, self.in_memory = memory, True
        self._warn(error)

    def _refusal(self, error: Exception) -> Exception:
        if isinstance(error, OSError):
            return error  # explained where all of the system's are
        if self._path is not None and _is_disk_full(error, self._path):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(self._path))
        what = "read" if self._use is Use.READ else "changed"
        is_torn = isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)
        kind = IntegrityError if is_torn and str(error) != NEWER else MixcliError
        return kind(
            f"the conversations in {self._path} cannot be {what}: {error}; repair it, move it away, or set MIXCLI_HOME to another folder"
        )

    def _warn(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) else error
        console.warn(
            f"conversations cannot be saved in {self._path} ({reason}); the chat continues in memory and is lost at the end; "
            "save it with /export PATH"
        )


def _is_disk_full(error: Exception, path: Path) -> bool:
    """Return whether an error of SQLite means a full disk; where its shared memory cannot grow, it calls that an I/O error."""
    said = str(error)
    return "disk is full" in said or ("disk I/O" in said and shutil.disk_usage(path.parent).free < MIN_FREE)


def open_database(path: Path | None) -> sqlite3.Connection:
    """Open the database, made where there is none; None gives one in memory. Raises sqlite3.Error or OSError.

    The write-ahead log lets several chats share it, and a kill at any moment leaves what was committed.
    """
    if path is not None:
        path.touch(mode=0o600)
    database = sqlite3.connect(path or ":memory:", timeout=BUSY, isolation_level=None)
    try:
        database.row_factory, database.text_factory = _row, _text
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


def _row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> sqlite3.Row:
    """Return a row whose columns have their types: SQLite keeps in any column whatever another program has put there."""
    typed: list[Any] = []
    for (name, *_), value in zip(cursor.description, values, strict=True):
        if name in NUMBERS:
            typed.append(value if isinstance(value, int) else None)
        else:
            typed.append(_text(value) if isinstance(value, bytes) and name != "tokens" else value)
    return sqlite3.Row(cursor, tuple(typed))


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _reader(path: Path, how: str) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, timeout=BUSY, isolation_level=None
    )
    try:
        database.row_factory, database.text_factory = _row, _text
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
            found = database.execute("PRAGMA user_version").fetchone()[0]
            steps = [UPGRADES[one] for one in range(found, VERSION)] if found else _statements(TABLES)
            for statement in steps:
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
