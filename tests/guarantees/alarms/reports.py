"""Releases of a class with a recurring alarm, and storages in which it is turned on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from trio_durable import (
    Clock,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    alarm,
    handler,
)
from trio_durable._clock import instant
from trio_durable.storage import AlarmRow

from .test_clocks import WallClock

HOUR = timedelta(hours=1)
runs: list[tuple[datetime, datetime]] = []
"""The due time and the time of each run."""


@pytest.fixture(autouse=True)
def fresh_runs() -> None:
    runs.clear()


Act = Callable[[Any], Any]


def nothing(_self: object) -> None:
    pass


def report(act: Act = nothing, **options: Any) -> type[Any]:
    """A release of a class with a recurring alarm."""
    options.setdefault("every", HOUR)
    if "cron" in options:
        del options["every"]

    class Report(DurableObject, name="Report"):
        count: int = 0

        @alarm(**options)
        async def digest(self) -> None:
            current = self.ctx.alarm
            assert current is not None
            runs.append((current.due_at, self.ctx.now()))
            self.count += 1
            result = act(self)
            if result is not None:
                await result

        @handler
        def do(self, what: str) -> None:
            getattr(self.ctx, what)("digest")

        @handler
        def clear(self) -> None:
            self.ctx.cancel_all_alarms()

        @handler
        def remove(self) -> None:
            self.ctx.delete()

        @handler
        def change(self) -> None:
            self.count += 1

        @handler
        async def listed(self, step: str = "") -> list[datetime]:
            if step:
                getattr(self.ctx, step)("digest")
            return [alarm.due_at for alarm in await self.ctx.list_alarms()]

        @handler(readonly=True)
        def read(self) -> int:
            return self.count

    return Report


class Plain(DurableObject, name="Report"):
    """An older release, which has no such alarm."""

    count: int = 0

    @handler
    def change(self) -> None:
        self.count += 1


class CertainClock(WallClock):
    """Begins on a certain Sunday in March, in the afternoon, and is never set."""

    @property
    def may_jump(self) -> bool:
        return False


def opened(
    storage: MemoryStorage, cls: type[DurableObject], clock: Clock | None = None, **options: Any
) -> DurableRuntime:
    options.setdefault("runner", InlineRunner)
    options.setdefault("polling_interval", 86400)  # which keeps long times cheap
    return DurableRuntime(storage, objects=[cls], clock=clock, **options)


def rows(storage: MemoryStorage, object_id: str = "a") -> list[AlarmRow]:
    found = storage.open_reader().browse_alarms(None, 0, "Report", None, 100)
    return [row for row in found if row.alarm.key.object_id == object_id]


def row(storage: MemoryStorage, object_id: str = "a") -> AlarmRow:
    """The one row of the alarm."""
    (found,) = [each for each in rows(storage, object_id) if each.alarm.key.name == "digest"]
    return found


def due(storage: MemoryStorage, object_id: str = "a") -> datetime:
    return instant(row(storage, object_id).alarm.due_at)


async def now(runtime: DurableRuntime) -> datetime:
    return instant(runtime._open().clock.now())


@asynccontextmanager
async def turned_on(
    cls: type[DurableObject], storage: MemoryStorage | None = None, clock: Clock | None = None
) -> AsyncIterator[tuple[DurableRuntime, MemoryStorage, datetime]]:
    """A runtime in which the alarm of "a" is turned on, with its storage and the first time."""
    storage = MemoryStorage() if storage is None else storage
    async with opened(storage, cls, clock) as runtime:
        await runtime.schedule_alarm(cls, "a", "digest")
        yield runtime, storage, due(storage)


async def left_on(
    cls: type[DurableObject], clock: Clock | None = None
) -> tuple[MemoryStorage, datetime]:
    """A storage with "a", whose alarm is on, without a runtime; and the alarm's first time."""
    async with turned_on(cls, clock=clock) as (runtime, storage, first):
        await runtime.call(cls, "a", "change")
        return storage, first
