"""Alarms in an SQLite file with two writers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from trio_durable import SQLiteStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import AlarmChanges, Commit, Writer
from trio_durable.storage.sqlite._lock import FileLock
from trio_durable.storage.sqlite._migrations import Schema
from trio_durable.storage.sqlite._watch import FileWatch
from trio_durable.storage.sqlite._writer import SQLiteWriter

from .files import NOW, alarm_key, execute, fill, rows_of_alarms, setting, writing


@contextmanager
def another_writer(path: Path) -> Iterator[Writer]:
    """One that got past the lock, as on a file system that has none.

    It syncs nothing. Else each of hundreds of transactions would wait for the disk, with the lock
    that the others poll for.
    """
    storage = SQLiteStorage(path, busy_timeout=60)
    lock = FileLock(path.with_name(f"another-{threading.get_ident()}-lock"), storage.location)
    connection = storage._connect()
    connection.execute("PRAGMA synchronous = OFF")
    schema = Schema(connection)
    with closing(SQLiteWriter(connection, schema, lock, FileWatch(path))) as writer:
        yield writer


def in_threads(count: int, work: Callable[[int, threading.Barrier], None]) -> None:
    """Begin together; raise what any of them raises, which ends what waits at the barrier."""
    barrier = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number, barrier)
        except BaseException as error:  # noqa: BLE001  # asserted below
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_of_writers_that_race_for_alarms_each_gets_its_own(path: Path) -> None:
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        keys = fill(writer, 150)
        claimed: list[list[tuple[AlarmKey, int]]] = [[], [], []]

        def race(number: int, _: threading.Barrier) -> None:
            order = [*keys]
            random.Random(number).shuffle(order)
            with another_writer(path) as racer:
                for n, start in enumerate(range(0, len(order), 20)):
                    claim = 1 + 3 * n + number
                    found = racer.claim(order[start : start + 20], claim, NOW, NOW + 60)
                    claimed[number] += [(alarm.key, claim) for alarm in found]

        in_threads(3, race)
        won = [one for mine in claimed for one in mine]
        assert len(won) == len(keys)
        assert {one for one, _ in won} == set(keys)
        # And what each believes to hold it holds.
        commits = [
            Commit(one.object_key, None, alarms=AlarmChanges(acknowledged={one.name: claim}))
            for one, claim in won
        ]
        assert [list(writer.commit([commit], NOW)) for commit in commits] == [[]] * len(keys)


def test_of_writers_that_race_to_acknowledge_one_applies(path: Path) -> None:
    """Each has claimed every alarm once; the claims of all but the last are lost."""
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        keys = fill(writer, 30)
        applied: list[int] = []
        effects: list[AlarmKey] = []
        claiming = threading.Lock()

        def race(number: int, ready: threading.Barrier) -> None:
            with another_writer(path) as racer:
                claim = number + 1
                # One after the other: a claim that runs out at once may be lost to the next one
                # before it is read.
                with claiming:
                    mine = racer.claim(keys, claim, NOW, NOW)
                assert len(mine) == len(keys)
                ready.wait()
                for one in keys:
                    done = AlarmChanges(acknowledged={one.name: claim})
                    if not racer.commit([Commit(one.object_key, None, alarms=done)], NOW):
                        applied.append(number)
                        effects.append(one)

        in_threads(3, race)
        assert sorted(effects) == sorted(keys)
        assert len(set(applied)) == 1
    assert rows_of_alarms(path) == []


def test_writers_that_race_with_whole_commits_apply_each_effect_once(path: Path) -> None:
    """Claims run out at once and are taken over all the time, before, between and after."""
    with writing(SQLiteStorage(path, durability="normal")) as writer:
        ids = [f"{n}" for n in range(20)]
        writer.commit([setting(one, "x") for one in ids], NOW)
        effects: list[str] = []

        def race(number: int, _: threading.Barrier) -> None:
            storage = SQLiteStorage(path, busy_timeout=60)
            with another_writer(path) as racer, closing(storage.open_reader()) as reader:
                claim = number + 1
                while reader.due_alarms(NOW + 1, None, 1, ()):
                    claim += 2
                    for alarm in racer.claim([alarm_key("x", o) for o in ids], claim, NOW, NOW):
                        (row,) = reader.load([alarm.key.object_key])
                        # An effect for which its own claim is the only fence.
                        revision = row.revision if row else 0
                        done = AlarmChanges(acknowledged={"x": claim})
                        commit = Commit(alarm.key.object_key, revision, b"1", alarms=done)
                        if not racer.commit([commit], NOW):
                            effects.append(alarm.key.object_id)

        in_threads(2, race)
        assert sorted(effects) == sorted(ids)
    assert execute(path, "SELECT DISTINCT revision FROM durable_objects") == [(1,)]
