"""Alarms: how they are defined, set, cancelled, listed, and what a handler sees of its own."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import assert_type

import attrs

from trio_durable import (
    Alarm,
    AlarmDefinition,
    Clock,
    DurableObject,
    DurableRuntime,
    InvalidAlarm,
    ObjectKey,
    Retry,
    alarm,
    definition_of,
    handler,
)


@attrs.define
class Note:
    text: str
    copies: int = 1


class Reminder(DurableObject):
    rung: int = 0

    @alarm
    def ring(self) -> None:
        self.rung += 1

    @alarm()
    async def ring_slowly(self) -> None:
        self.rung += 1

    @alarm(retry=Retry(initial=1, factor=1.5, maximum=timedelta(minutes=5), attempts=3))
    def repeat(self) -> int:
        due = self.ctx.alarm
        assert_type(due, Alarm | None)
        if due is not None:
            assert_type(due.key, ObjectKey)
            assert_type(due.name, str)
            assert_type(due.due_at, datetime)
            assert_type(due.payload, object)
            assert_type(due.attempt, int)
            assert_type(due.last_error, str | None)
            assert_type(due.payload_as(Note), Note)
            assert_type(due.payload_as(Note).text, str)
            assert_type(due.payload_as(datetime), datetime)
            assert_type(due.payload_as(list[int]), list[int])
            self.ctx.schedule_alarm("repeat", at=due.due_at + timedelta(hours=1))
        return self.rung

    @alarm(retry=Retry(attempts=None, crashes=None))
    async def later(self) -> str:
        return ""

    @handler
    def set_some(self) -> int:
        self.ctx.schedule_alarm("ring", after=5)
        self.ctx.schedule_alarm("ring", after=0.5)
        self.ctx.schedule_alarm("ring", after=timedelta(days=1), payload=None)
        self.ctx.schedule_alarm("ring", at=datetime.now(UTC), payload={"n": [1, 2, None]})
        self.ctx.schedule_alarm("ring", after=1, payload=Note("x"))
        self.ctx.cancel_alarm("ring")
        self.ctx.cancel_all_alarms()
        # Plain methods, with the types that they were written with.
        assert_type(self.repeat(), int)
        self.ring()
        return self.rung

    @handler
    async def call_some(self) -> str:
        await self.ring_slowly()
        assert_type(await self.later(), str)
        return await self.later()


class Patient(Reminder):
    """Overrides alarms, and what handles those of other names."""

    @alarm(retry=Retry())
    def repeat(self) -> int:
        return super().repeat() + 1

    @alarm
    async def later(self) -> str:
        return (await super().later()).upper()

    def handle_alarm(self, alarm: Alarm) -> None:
        assert_type(alarm.payload, object)


class Hasty(Reminder):
    async def handle_alarm(self, alarm: Alarm) -> None:
        await super().ring_slowly()


class Either(Reminder):
    def handle_alarm(self, alarm: Alarm) -> Awaitable[None] | None:
        return super().handle_alarm(alarm)


async def from_outside(runtime: DurableRuntime) -> None:
    await runtime.schedule_alarm(Reminder, "r", "ring", after=timedelta(seconds=1))
    await runtime.schedule_alarm("Reminder", "r", "ring", at=datetime.now(UTC), payload=[1])
    await runtime.cancel_alarm(Reminder, "r", "ring")
    await runtime.cancel_all_alarms("Reminder", "r")
    alarms = await runtime.list_alarms(Reminder, "r")
    assert_type(alarms, list[Alarm])
    dead = await runtime.list_dead_letters(Reminder, limit=10)
    assert_type(dead, list[Alarm])
    await runtime.list_dead_letters("Reminder", after=dead[-1])
    assert_type(await runtime.retry_alarm(Reminder, "r", "ring"), bool)
    statistics = runtime.statistics()
    assert_type(statistics.alarms_waiting, int)
    assert_type(statistics.alarms_in_flight, int)
    assert_type(statistics.alarms_delivered, int)
    assert_type(statistics.alarms_failed, int)


class Stopped(Clock):
    @property
    def may_jump(self) -> bool:
        return False

    def now(self) -> int:
        return 0


async def opened() -> None:
    async with DurableRuntime(
        "x.db", polling_interval=timedelta(minutes=1), claim_ttl=30, clock=Stopped()
    ):
        pass
    DurableRuntime("x.db", clock=None)


def introspected() -> None:
    definition = definition_of(Reminder)
    assert_type(definition.alarms["ring"], AlarmDefinition)
    assert_type(definition.alarms["ring"].retry, Retry)
    assert_type(definition.handle_alarm, AlarmDefinition | None)


def made_for_a_test() -> Alarm:
    due = Alarm(ObjectKey("Reminder", "r"), "ring", datetime.now(UTC), payload={"text": "x"})
    with suppress(InvalidAlarm):
        assert_type(due.payload_as(Note), Note)
    return due


class Recurring(DurableObject):
    @alarm(
        cron="0 9 * * mon-fri",
        zone="Europe/Berlin",
        missed="once",
        spread=timedelta(minutes=5),
        autostart=True,
        retry=Retry(attempts=3),
    )
    def digest(self) -> None:
        assert self.ctx.alarm is not None
        assert_type(self.ctx.alarm.is_recurring, bool)

    @alarm(every=timedelta(hours=1), missed="skip", grace=30)
    async def read_meter(self) -> None:
        self.ctx.schedule_alarm("read_meter")
        self.ctx.schedule_alarm("digest", after=5, keep=True)
        assert_type(await self.ctx.list_alarms(), list[Alarm])


async def recur(runtime: DurableRuntime) -> None:
    await runtime.schedule_alarm(Recurring, "a", "read_meter")
    await runtime.schedule_alarm(Recurring, "a", "once", after=5, keep=True)
