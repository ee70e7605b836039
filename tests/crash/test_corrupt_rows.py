"""Corrupt rows: an error names the row to the caller who needs it, and everything else works.

SQLite keeps whatever it is given in a column, whatever its type. `tests.storage.sqlite` has
corrupt states and payloads; here it is the columns that the library counts and compares with.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_durable import (
    DurableError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    InvalidAlarm,
    ObjectKey,
    PersistenceError,
    SQLiteStorage,
    alarm,
    handler,
)
from trio_durable.storage import Commit, CorruptRow, StoredObject

from .history import opened

BAD = ObjectKey("Bell", "bad")
OTHERS = ["good", "fine"]


class Bell(DurableObject):
    strokes: int = 0
    rings: int = 0

    @handler
    def strike(self) -> int:
        self.strokes += 1
        return self.strokes

    @handler
    def set(self) -> None:
        self.ctx.schedule_alarm("ring", after=5)

    @alarm
    def ring(self) -> None:
        self.rings += 1


def execute(path: Path, sql: str) -> list[tuple[object, ...]]:
    """Run a statement as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.text_factory = bytes
        return connection.execute(sql).fetchall()


def serving(path: Path, scenario: Callable[[DurableRuntime], Awaitable[None]]) -> None:
    async def main() -> None:
        async with DurableRuntime(
            path, objects=[Bell], runner=InlineRunner, polling_interval=10
        ) as runtime:
            await scenario(runtime)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture
def path(folder: Path) -> Path:
    """A file with three bells, each of which has been struck once and is to ring."""
    path = folder / "objects.db"

    async def fill(runtime: DurableRuntime) -> None:
        for object_id in ("bad", *OTHERS):
            bell = runtime.get(Bell, object_id)
            await bell.strike()
            await bell.set()

    serving(path, fill)
    return path


async def others_work(runtime: DurableRuntime) -> None:
    """Together with the bad one, so that they share its reads and its transactions."""

    async def strike(object_id: str) -> None:
        try:
            assert await runtime.get(Bell, object_id).strike() == 2
        except DurableError:
            assert object_id == "bad"

    async with trio.open_nursery() as nursery:
        for object_id in ("bad", *OTHERS):
            nursery.start_soon(strike, object_id)
    await trio.sleep(20)
    for object_id in OTHERS:
        await runtime.ensure_started(Bell, object_id)
        bell = await runtime.get_state(Bell, object_id)
        assert bell.rings == 1


REVISIONS = {
    "negative": "-5",
    "zero": "0",
    "text": "'x'",
    "a fraction": "1.5",
    "bytes": "x'00ff'",
    "invalid text": "CAST(x'ff' AS TEXT)",
    "the largest": "9223372036854775807",
}


@pytest.mark.parametrize("revision", REVISIONS.values(), ids=REVISIONS.keys())
def test_an_object_whose_revision_is_none_is_refused_by_name(path: Path, revision: str) -> None:
    execute(path, f"UPDATE durable_objects SET revision = {revision} WHERE object_id = 'bad'")
    raw = "SELECT * FROM durable_objects WHERE object_id = 'bad'"
    before = execute(path, raw)

    async def scenario(runtime: DurableRuntime) -> None:
        bell = runtime.get(Bell, "bad")
        for call in (bell.strike, bell.set, lambda: runtime.put_state(Bell, "bad", Bell())):
            with pytest.raises(PersistenceError, match=r"could not load Bell\('bad'\)") as caught:
                await call()
            assert caught.value.key == BAD
        await others_work(runtime)

    serving(path, scenario)
    assert execute(path, raw) == before


def test_a_reader_says_which_row_is_corrupt(path: Path) -> None:
    execute(path, "UPDATE durable_objects SET revision = -5 WHERE object_id = 'bad'")
    good = ObjectKey("Bell", "good")
    with opened(SQLiteStorage(path)) as (writer, reader):
        with pytest.raises(CorruptRow) as caught:
            reader.load([good, BAD])
        assert caught.value.key == BAD
        [row] = reader.load([good])
        assert isinstance(row, StoredObject)
        writer.commit([Commit(good, row.revision, row.state)], 0)


TIMES = {
    "text": "'soon'",
    "a fraction": "due_at + 0.5",
    "bytes": "x'ff'",
    "no time of any calendar": "9223372036854775807",
}


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("time", TIMES.values(), ids=TIMES.keys())
def test_an_alarm_whose_time_is_none_is_refused_by_name(path: Path, time: str) -> None:
    execute(path, f"UPDATE durable_alarms SET due_at = {time} WHERE object_id = 'bad'")
    raw = "SELECT due_at FROM durable_alarms WHERE object_id = 'bad'"
    before = execute(path, raw)

    async def scenario(runtime: DurableRuntime) -> None:
        await others_work(runtime)
        with pytest.raises(InvalidAlarm, match=r"ring of Bell\('bad'\): its row can't"):
            await runtime.list_alarms(Bell, "bad")
        assert await runtime.get(Bell, "bad").strike() == 3

    serving(path, scenario)
    assert execute(path, raw) == before

    async def mend(runtime: DurableRuntime) -> None:
        await runtime.schedule_alarm(Bell, "bad", "ring", after=0)
        await trio.sleep(1)
        await runtime.ensure_started(Bell, "bad")
        assert (await runtime.get_state(Bell, "bad")).rings == 1
        assert await runtime.list_alarms(Bell, "bad") == []

    serving(path, mend)


AVAILABLE = {"text": "'soon'", "a fraction": "due_at + 0.5", "bytes": "x'ff'"}


@pytest.mark.parametrize("time", AVAILABLE.values(), ids=AVAILABLE.keys())
def test_an_alarm_that_can_not_become_due_keeps_no_other_from_it(
    path: Path, time: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute(path, f"UPDATE durable_alarms SET available_at = {time} WHERE object_id = 'bad'")
    serving(path, others_work)
    assert len(execute(path, "SELECT * FROM durable_alarms WHERE object_id = 'bad'")) == 1
    said = [record for record in caplog.records if record.name == "trio_durable.storage"]
    assert "in durable_alarms can't" in said[0].message


KEYS = {
    "invalid text": "name = CAST(x'ff' AS TEXT)",
    "bytes": "name = x'ff'",
    "bytes that are text": "name = CAST(name AS BLOB)",
    "an id of bytes": "object_id = x'ff'",
    "a type of bytes": "type_name = x'ff'",
}


@pytest.mark.parametrize("change", KEYS.values(), ids=KEYS.keys())
def test_an_alarm_without_a_name_keeps_no_other_from_its_delivery(
    path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    execute(path, f"UPDATE durable_alarms SET {change} WHERE object_id = 'bad'")
    serving(path, others_work)
    assert len(execute(path, "SELECT * FROM durable_alarms")) == 1
    [*_, said] = [record for record in caplog.records if record.name == "trio_durable.storage"]
    assert "an alarm in durable_alarms can't be delivered" in said.message


COUNTS = ["failures = 'x'", "failures = -3", "failures = 1.5", "last_error = x'ff'", "claim = 'x'"]


@pytest.mark.parametrize("change", COUNTS)
def test_an_alarm_whose_failures_are_not_told_is_delivered(path: Path, change: str) -> None:
    execute(path, f"UPDATE durable_alarms SET {change} WHERE object_id = 'bad'")

    async def scenario(runtime: DurableRuntime) -> None:
        [alarm] = await runtime.list_alarms(Bell, "bad")
        assert (alarm.attempt, alarm.last_error) == (1, None)
        await others_work(runtime)
        assert (await runtime.get_state(Bell, "bad")).rings == 1

    serving(path, scenario)


@pytest.fixture
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trio_durable.alarms")
