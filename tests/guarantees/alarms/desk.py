"""Objects whose alarms do what a test scripts, and a record of what fired."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest
from support.scripted import ScriptedStorage

from trio_durable import Alarm, DurableObject, DurableRuntime, Objects, alarm, handler

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TICK = timedelta(milliseconds=1, microseconds=5)
"""How late an alarm may be: ticks are rounded up, and loops round as well."""


@attrs.frozen
class Firing:
    """What an alarm's handler saw when it began."""

    object_id: str
    alarm: Alarm
    time: datetime

    @property
    def late(self) -> timedelta:
        return self.time - self.alarm.due_at


Script = Callable[[Any], Any]

scripts: dict[str, Script] = {}
"""What handlers do, by the name that they are given."""
fired: list[Firing] = []
seen: list[object] = []


@pytest.fixture(autouse=True)
def fresh_desk() -> None:
    scripts.clear()
    fired.clear()
    seen.clear()


def script(name: str, what: Script) -> str:
    scripts[name] = what
    return name


def do_nothing(_self: object) -> None:
    pass


class Desk(DurableObject):
    """Notes the alarms that go off, and does what the script says for their names."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def do(self, what: str) -> None:
        scripts[what](self)

    @handler
    async def do_slowly(self, what: str) -> None:
        result = scripts[what](self)
        if inspect.isawaitable(result):
            await result

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log

    @handler(readonly=True)
    def do_readonly(self, what: str) -> None:
        scripts[what](self)

    @handler(readonly=True)
    async def do_readonly_slowly(self, what: str) -> None:
        await scripts[what](self)

    def handle_alarm(self, alarm: Alarm) -> None:
        begin(self)
        self.log.append(alarm.name)
        scripts.get(alarm.name, do_nothing)(self)


class AsyncDesk(Desk):
    async def handle_alarm(self, alarm: Alarm) -> None:  # type: ignore[override]
        begin(self)
        self.log.append(alarm.name)
        result = scripts.get(alarm.name, do_nothing)(self)
        if inspect.isawaitable(result):
            await result


class Named(DurableObject):
    """Has methods for some alarms, and a catch-all for the others."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def set(self, name: str, payload: object = None) -> None:
        self.ctx.schedule_alarm(name, after=1, payload=payload)

    @alarm
    def plain(self) -> None:
        self.log.append("plain")

    @alarm
    async def slow(self) -> None:
        await anyio.sleep(1)
        self.log.append("slow")

    def handle_alarm(self, alarm: Alarm) -> None:
        self.log.append(f"other: {alarm.name}")


class Deaf(DurableObject):
    """Handles one alarm only."""

    count: int = 0

    @handler
    def increment(self) -> int:
        self.count += 1
        return self.count

    @alarm
    def known(self) -> None:
        self.count += 10


class Starter(DurableObject):
    """Does what the script says when it is activated."""

    log: list[str] = attrs.field(factory=list)

    def after_load(self) -> None:
        self.log.append("after_load")
        seen.append(self.ctx.alarm)
        scripts.get("after_load", do_nothing)(self)

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @alarm
    def ring(self) -> None:
        begin(self)
        self.log.append("ring")


OBJECTS = (Desk, AsyncDesk, Named, Deaf, Starter)


def begin(self: DurableObject) -> None:
    current = self.ctx.alarm
    assert current is not None
    fired.append(Firing(self.ctx.object_id, current, wall(self.ctx.runtime)))


def wall(runtime: Objects) -> datetime:
    """The time, as the runtime has it."""
    return _EPOCH + timedelta(microseconds=runtime._open().clock.now())


def opened(storage: ScriptedStorage | None = None, **options: Any) -> DurableRuntime:
    storage = storage or ScriptedStorage()
    return DurableRuntime(storage, objects=OBJECTS, runner=storage.runner, **options)


def names(firings: Sequence[Firing] | None = None) -> list[str]:
    return [firing.alarm.name for firing in (fired if firings is None else firings)]


async def alarms_of(
    runtime: DurableRuntime, object_id: str = "a", cls: type[DurableObject] = Desk
) -> dict[str, float]:
    """In how many seconds each alarm is due."""
    now = wall(runtime)
    return {
        alarm.name: round((alarm.due_at - now).total_seconds(), 3)
        for alarm in await runtime.list_alarms(cls, object_id)
    }


def sets(name: str, after: float = 10, payload: object = None) -> Script:
    return lambda self: self.ctx.schedule_alarm(name, after=after, payload=payload)


def cancels(name: str) -> Script:
    return lambda self: self.ctx.cancel_alarm(name)


def cancels_all(self: DurableObject) -> None:
    self.ctx.cancel_all_alarms()


def then(*scripts: Script) -> Script:
    def all_of_them(self: object) -> None:
        for each in scripts:
            each(self)

    return all_of_them


def raises(_self: object) -> None:
    raise KeyError("on purpose")
