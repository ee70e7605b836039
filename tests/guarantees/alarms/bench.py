"""Objects whose alarms do what a test scripts, in runtimes with one storage."""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import attrs
import pytest
from support.scripted import ScriptedStorage

from trio_durable import (
    Alarm,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    Objects,
    Retry,
    Storage,
    alarm,
    handler,
)
from trio_durable._keys import AlarmKey
from trio_durable.storage import Commit, Postponement, Reader, StorageFault, StoredAlarm, Writer
from trio_durable.storage._forwarding import ForwardingWriter

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TICK = timedelta(milliseconds=1, microseconds=5)
"""How late an alarm may be: ticks are rounded up, and loops round as well."""


@attrs.frozen
class Firing:
    """What an alarm's handler saw when it began."""

    object_id: str
    alarm: Alarm
    at: float
    """By the loop's clock, since the test began."""
    late: timedelta
    runtime: Objects


Script = Callable[[Any], Any]

scripts: dict[str, Script] = {}
"""What handlers do, by the name of the alarm or what they are given."""
fired: list[Firing] = []
seen: list[object] = []


@pytest.fixture(autouse=True)
def fresh_bench() -> None:
    scripts.clear()
    fired.clear()
    seen.clear()


def script(name: str, what: Script) -> str:
    scripts[name] = what
    return name


def do_nothing(_self: object) -> None:
    pass


def begin(self: DurableObject) -> None:
    current = self.ctx.alarm
    assert current is not None
    services = self.ctx.runtime._open()
    now = EPOCH + timedelta(microseconds=services.clock.now())
    at = services.loop.now()
    fired.append(Firing(self.ctx.object_id, current, at, now - current.due_at, self.ctx.runtime))


class Bench(DurableObject):
    """Notes the alarms that go off, and does what the script says for their names."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def do(self, what: str) -> None:
        scripts[what](self)

    @handler
    async def do_slowly(self, what: str) -> None:
        await scripts[what](self)

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log

    def handle_alarm(self, alarm: Alarm) -> object:  # type: ignore[override]
        return self._act(alarm.name)

    @alarm(retry=Retry(initial=1, factor=1, maximum=1, attempts=3))
    def thrice(self) -> object:
        return self._act("thrice")

    @alarm(retry=Retry(initial=timedelta(seconds=10), factor=3, maximum=60))
    def patient(self) -> object:
        return self._act("patient")

    @alarm(retry=Retry(attempts=1))
    def once(self) -> object:
        return self._act("once")

    def _act(self, name: str) -> object:
        begin(self)
        self.log.append(name)
        return scripts.get(name, do_nothing)(self)


class AsyncBench(Bench):
    async def handle_alarm(self, alarm: Alarm) -> object:  # type: ignore[override]
        result = self._act(alarm.name)
        return await result if inspect.isawaitable(result) else result

    @alarm(retry=Retry(initial=1, factor=1, maximum=1, attempts=3))
    async def thrice(self) -> object:
        result = self._act("thrice")
        return await result if inspect.isawaitable(result) else result


class Shaky(DurableObject):
    """Can't begin while the script says so."""

    count: float = 0

    def after_load(self) -> None:
        scripts.get("after_load", do_nothing)(self)

    @handler(readonly=True)
    def read(self) -> float:
        return self.count

    def handle_alarm(self, alarm: Alarm) -> None:
        begin(self)
        self.count += 1
        scripts.get(alarm.name, do_nothing)(self)


OBJECTS = (Bench, AsyncBench, Shaky)

both = pytest.mark.parametrize("cls", [Bench, AsyncBench])


def opened(storage: ScriptedStorage | None = None, **options: Any) -> DurableRuntime:
    storage = storage or ScriptedStorage()
    given: dict[str, Any] = {"objects": OBJECTS, "runner": storage.runner, **options}
    return DurableRuntime(storage, **given)


def names(firings: Sequence[Firing] | None = None) -> list[str]:
    return [firing.alarm.name for firing in (fired if firings is None else firings)]


def times() -> list[float]:
    return [round(firing.at, 2) for firing in fired]


def raises(_self: object) -> None:
    raise KeyError("on purpose")


def fails(times: float, error: Callable[[], Exception] = lambda: KeyError("on purpose")) -> Script:
    """Let an object's alarm fail so many times, and then do nothing."""
    counts: Counter[str] = Counter()

    def act(self: DurableObject) -> None:
        counts[self.ctx.object_id] += 1
        if counts[self.ctx.object_id] <= times:
            raise error()

    return act


def faults(number: int) -> list[StorageFault]:
    return [StorageFault("disk full") for _ in range(number)]


def sleeps(seconds: float) -> Script:
    async def act(_self: object) -> None:
        await anyio.sleep(seconds)

    return act


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "trio_durable.alarms" and record.levelno >= logging.WARNING
    ]


class SharedStorage:
    """Objects in memory that several runtimes have open at a time.

    Nobody's claims are given back when one opens, as with a database on a network.
    """

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.writer = self.memory.open_writer()

    def side(self) -> Side:
        """The storage for one of the runtimes."""
        return Side(self)


class Side(Storage):
    def __init__(self, shared: SharedStorage) -> None:
        self._shared = shared
        self.dead = False
        """Nothing reaches the storage any more, as if the process were gone."""
        self.renews = True

    @property
    def location(self) -> str:
        return ":shared:"

    def open_writer(self) -> Writer:
        return _SideWriter(self, self._shared.writer)

    def open_reader(self) -> Reader:
        return self._shared.memory.open_reader()


class _SideWriter(ForwardingWriter):
    def __init__(self, side: Side, inner: Writer) -> None:
        super().__init__(inner)
        self._side = side

    def _check(self, works: bool = True) -> None:
        if self._side.dead or not works:
            raise StorageFault("the process is gone")

    def commit(self, batch: Sequence[Commit], now: int) -> Any:
        self._check()
        return super().commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        self._check()
        return super().claim(alarms, claim, now, until)

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._check(self._side.renews)
        super().renew(claims, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._check()
        super().postpone(postponements)

    def mark(self, alarm: AlarmKey, claim: int) -> bool:
        self._check()
        return super().mark(alarm, claim)

    def acquit(self, alarm: AlarmKey, claim: int) -> bool:
        self._check()
        return super().acquit(alarm, claim)

    def close(self) -> None:
        pass  # the others go on


def sharing(side: Side, **options: Any) -> DurableRuntime:
    return DurableRuntime(side, objects=OBJECTS, runner=InlineRunner, **options)
