"""Keys, commits and rows of the tests on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing

import psycopg

from trio_durable import ObjectKey
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, AlarmRow, Commit, NewAlarm, Reader, Writer
from trio_durable.storage.postgres import PostgresStorage
from trio_durable.storage.postgres._membership import NodeSettings

NOW = 1_767_225_600_000_000
SECOND = 1_000_000


def key(object_id: str, tenant: str = "") -> ObjectKey:
    return ObjectKey("Cart", object_id, tenant)


def save(object_id: str, revision: int, state: bytes = b"1", epoch: int = 0) -> Commit:
    return Commit(key(object_id), revision, state, epoch=epoch)


def setting(object_id: str, *names: str, revision: int | None = None) -> Commit:
    changed = {name: NewAlarm(NOW, None) for name in names}
    return Commit(key(object_id), revision, alarms=AlarmChanges(changed={**changed}))


def alarm_key(object_id: str, name: str = "x") -> AlarmKey:
    return AlarmKey("Cart", object_id, name)


def commit(writer: Writer, *batch: Commit) -> list[int]:
    return sorted(writer.commit(batch, NOW))


ALARM = {"x": NewAlarm(NOW, None)}


def in_thread(work: Callable[[], object]) -> tuple[list[object], threading.Thread]:
    outcome: list[object] = []
    thread = threading.Thread(target=lambda: outcome.append(work()))
    thread.start()
    return outcome, thread


def waits(admin: psycopg.Connection[tuple[object, ...]]) -> int:
    """How many connections wait for a lock."""
    return count(admin, "SELECT count(*) FROM pg_locks WHERE NOT granted")


def beside(conninfo: str) -> PostgresStorage:
    """A storage whose writer is a node beside others."""
    storage = PostgresStorage(conninfo)
    storage._node = NodeSettings(group="default")
    return storage


def race(conninfo: str, count: int, work: Callable[[int, Writer], object]) -> None:
    """Let ``work`` run in threads, each as a node beside the others."""
    start = threading.Barrier(count)
    errors: list[Exception] = []

    def run(number: int) -> None:
        try:
            start.wait()
            with closing(beside(conninfo).open_writer()) as writer:
                work(number, writer)
        except Exception as error:  # noqa: BLE001  # asserted below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def count(admin: psycopg.Connection[tuple[object, ...]], query: str) -> int:
    row = admin.execute(query.encode()).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


Admin = psycopg.Connection[tuple[object, ...]]


def everything(reader: Reader) -> list[AlarmRow]:
    return reader.browse_alarms(None, NOW, None, None, 9)
