"""SQLite files that the tests write, look into and serve from."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path

import pytest
import sqlite_utils
import trio
import trio.testing

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    SQLiteStorage,
    handler,
)
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, Commit, NewAlarm, Reader, Writer
from trio_durable.storage.sqlite._names import TableNames
from trio_durable.storage.sqlite._writer import SQLiteWriter

NOW = 1_767_225_600_000_000

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX processes and permissions")


class Counter(DurableObject):
    n: int = 0
    text: str = ""

    @handler
    def add(self, amount: int = 1) -> int:
        self.n += amount
        return self.n

    @handler
    def write(self, text: str) -> None:
        self.text = text

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    @handler(readonly=True)
    def value(self) -> int:
        return self.n


def key(object_id: str) -> ObjectKey:
    return ObjectKey("Counter", object_id)


def connection_of(writer: Writer) -> sqlite3.Connection:
    assert isinstance(writer, SQLiteWriter)
    return writer._connection


@contextmanager
def writing(storage: SQLiteStorage) -> Iterator[Writer]:
    with closing(storage.open_writer()) as writer:
        yield writer


def execute(path: Path, sql: str, *parameters: object) -> list[tuple[object, ...]]:
    """Run a statement as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


def serving(
    storage: Path | SQLiteStorage,
    scenario: Callable[[DurableRuntime, sqlite3.Connection], Awaitable[None]],
) -> None:
    """Run ``scenario`` with a runtime whose writer's connection is at hand.

    Storage work runs inline, so that the connection may be used here.
    """

    async def main() -> None:
        async with DurableRuntime(storage, objects=[Counter], runner=InlineRunner) as runtime:
            await scenario(runtime, connection_of(runtime._open().sides.writer))

    trio.run(main)


def executed(traced: list[str]) -> list[str]:
    """The statements that were executed; SQLite traces each start of a trigger as one more."""
    return [text for text, _ in groupby(traced)]


CORRUPT = {
    "BLOB": 'CAST(\'{"n":1,"text":""}\' AS BLOB)',
    "BLOB that isn't text": "x'ff00ff'",
    "large BLOB": "zeroblob(100000)",
    "invalid UTF-8": "CAST(x'22ff22' AS TEXT)",
    "large invalid UTF-8": "CAST(zeroblob(100000) || x'ff' AS TEXT)",
    "empty": "''",
    "NUL in front": "char(0) || '{}'",
    "NUL behind": '\'{"n":1,"text":""}\' || char(0)',
    "no JSON": "'hello'",
    "cut off": "'{\"n\":1'",
    "another shape": "'[1,2]'",
    "another type": '\'{"n":"one","text":""}\'',
    "JSON null": "'null'",
    "number": "17",
}


def schema(path: Path) -> dict[str, object]:
    with closing(sqlite3.connect(path)) as connection:
        db = sqlite_utils.Database(connection)
        return {
            "schema": db.schema,
            "applied": [
                row["name"] for row in db.query("SELECT name FROM _sqlite_migrations ORDER BY id")
            ],
        }


def theirs(tenant: str, object_id: str = "a") -> ObjectKey:
    return ObjectKey("Counter", object_id, tenant)


def alarm_key(name: str, object_id: str = "a") -> AlarmKey:
    return AlarmKey("Counter", object_id, name)


def setting(object_id: str, *names: str, due_at: int = NOW, payload: bytes | None = None) -> Commit:
    """Set alarms from outside."""
    changed: dict[str, NewAlarm | None] = {name: NewAlarm(due_at, payload) for name in names}
    return Commit(key(object_id), None, alarms=AlarmChanges(changed=changed))


def fill(writer: Writer, objects: int, *, due_at: int = NOW) -> list[AlarmKey]:
    """Set two alarms for each of many objects."""
    ids = [f"{n:05}" for n in range(objects)]
    for start in range(0, objects, 1000):
        batch = [setting(one, "x", "y", due_at=due_at) for one in ids[start : start + 1000]]
        assert writer.commit(batch, NOW) == ()
    return [alarm_key(name, one) for one in ids for name in "xy"]


def rows_of_alarms(path: Path) -> list[tuple[object, ...]]:
    return execute(path, "SELECT * FROM durable_alarms ORDER BY type_name, object_id, name")


@contextmanager
def traced(writer: Writer, reader: Reader) -> Iterator[list[str]]:
    """The statements that run inside the block."""
    statements: list[str] = []
    connections = (connection_of(writer), reader_connection(reader))
    for connection in connections:
        connection.set_trace_callback(statements.append)
    yield statements
    for connection in connections:
        connection.set_trace_callback(None)


def reader_connection(reader: Reader) -> sqlite3.Connection:
    connection: sqlite3.Connection = reader._connection  # type: ignore[attr-defined]
    return connection


def steps_of(writer: Writer, reader: Reader, work: Callable[[], object]) -> int:
    """How many instructions SQLite's machine needs: its work, with no clock in it."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connections = (connection_of(writer), reader_connection(reader))
    for connection in connections:
        connection.set_progress_handler(count, 1)
    work()
    for connection in connections:
        connection.set_progress_handler(None, 1)
    return steps


def drop_messages(path: Path, tenant: str = "") -> None:
    """Undo the migration of messages, but for its record."""
    names = TableNames(tenant)
    for table in (names.messages, names.dead_messages, names.once):
        execute(path, f"DROP TABLE {table}")
