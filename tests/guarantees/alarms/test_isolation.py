"""A tenant whose tables can't be read or written keeps no alarms of others waiting."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import anyio
import pytest

from trio_durable import DurableRuntime, InlineRunner, MemoryStorage
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    Commit,
    DueAlarm,
    ForwardingReader,
    ForwardingStorage,
    ForwardingWriter,
    PartialFault,
    Postponement,
    Reader,
    StoredAlarm,
    Writer,
)

from .bench import OBJECTS, AsyncBench, Bench, errors, fails, fired, script, sleeps

pytestmark = pytest.mark.anyio


class Troubled(ForwardingStorage):
    """Refuses the methods in ``refused`` for the tenant acme."""

    def __init__(self) -> None:
        super().__init__(MemoryStorage())
        self.refused: set[str] = set()
        self.asked: list[str] = []
        """The methods that were refused."""

    def check(self, method: str, tenants: Collection[str]) -> None:
        if method in self.refused and "acme" in tenants:
            self.asked.append(method)
            raise PartialFault("the table is locked")

    def open_writer(self) -> Writer:
        return _Writer(self, super().open_writer())

    def open_reader(self) -> Reader:
        return _Reader(self, super().open_reader())


class _Writer(ForwardingWriter):
    def __init__(self, storage: Troubled, inner: Writer) -> None:
        super().__init__(inner)
        self._check = storage.check

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        self._check("commit", [commit.key.tenant for commit in batch])
        return super().commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        self._check("claim", [alarm.tenant for alarm in alarms])
        return super().claim(alarms, claim, now, until)

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._check("renew", [alarm.tenant for alarm, _ in claims])
        super().renew(claims, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._check("postpone", [each.key.tenant for each in postponements])
        super().postpone(postponements)


class _Reader(ForwardingReader):
    def __init__(self, storage: Troubled, inner: Reader) -> None:
        super().__init__(inner)
        self._check = storage.check

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        self._check("due_alarms", [tenant])
        return super().due_alarms(before, after, limit, except_types, tenant)


TENANTS = ("aaa", "acme", "zoo")


def opened(storage: Troubled, **options: Any) -> DurableRuntime:
    return DurableRuntime(storage, objects=OBJECTS, runner=InlineRunner, **options)


def fired_at() -> dict[str, list[float]]:
    """The times at which alarms fired, by object."""
    found: dict[str, list[float]] = {}
    for firing in fired:
        found.setdefault(firing.object_id, []).append(round(firing.at))
    return found


async def schedule(runtime: DurableRuntime, after: float, cls: type[Bench] = Bench) -> None:
    """Set an alarm of an object in each tenant, with the tenant's name as its id."""
    for tenant in TENANTS:
        await runtime.tenant(tenant).schedule_alarm(cls, tenant, "x", after=after)


async def test_a_tenant_that_cant_be_read_keeps_no_alarms_of_others_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = Troubled()
    async with opened(storage, polling_interval=3600) as runtime:
        await schedule(runtime, 10)
    await anyio.sleep(20)
    storage.refused.add("due_alarms")
    async with opened(storage, polling_interval=60):
        await anyio.sleep(1)
        assert fired_at() == {"aaa": [20], "zoo": [20]}
        await anyio.sleep(300)
        # After 1, 2, 4, … seconds, and then once in each polling interval.
        assert 9 <= storage.asked.count("due_alarms") <= 14
        (warning,) = errors(caplog)
        assert warning == (
            "could not read alarms of tenant 'acme' that are due, and tries again: "
            "the table is locked"
        )
        storage.refused.clear()
        await anyio.sleep(61)
        assert list(fired_at()) == ["aaa", "zoo", "acme"]


async def test_after_a_short_trouble_the_alarms_of_the_tenant_are_soon_found() -> None:
    storage = Troubled()
    async with opened(storage, polling_interval=3600) as runtime:
        await schedule(runtime, 10)
    await anyio.sleep(20)
    storage.refused.add("due_alarms")
    async with opened(storage, polling_interval=3600):
        await anyio.sleep(2)
        storage.refused.clear()
        await anyio.sleep(4)
        assert list(fired_at()) == ["aaa", "zoo", "acme"]


async def test_alarms_that_cant_be_claimed_keep_no_others_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = Troubled()
    async with opened(storage) as runtime:
        await schedule(runtime, 10)
        await anyio.sleep(5)
        storage.refused.add("claim")
        await anyio.sleep(10)
        assert fired_at() == {"aaa": [10], "zoo": [10]}
        assert len(errors(caplog)) == 1
        await runtime.tenant("zoo").schedule_alarm(Bench, "zoo", "y", after=1)
        await anyio.sleep(2)
        assert fired_at()["zoo"] == [10, 16]
        storage.refused.clear()
        await anyio.sleep(2)
        assert len(fired_at()["acme"]) == 1


async def test_an_alarm_that_cant_be_claimed_cant_be_fired() -> None:
    storage = Troubled()
    async with opened(storage) as runtime:
        await schedule(runtime, 10)
        storage.refused.add("claim")
        scheduler = runtime._open().scheduler
        with pytest.raises(PartialFault):
            await scheduler.fire(AlarmKey("Bench", "acme", "x", "acme"))
        assert await scheduler.fire(AlarmKey("Bench", "zoo", "x", "zoo"))
        storage.refused.clear()
        await anyio.sleep(20)
        assert len(fired_at()["acme"]) == 1


async def test_postponements_that_cant_be_written_keep_no_others_waiting() -> None:
    storage = Troubled()
    async with opened(storage, claim_ttl=3600) as runtime:
        script("x", fails(1))
        await schedule(runtime, 10)
        storage.refused.add("postpone")
        await anyio.sleep(30)
        found = fired_at()
        assert [len(found[tenant]) for tenant in TENANTS] == [2, 1, 2]
        storage.refused.clear()
        await anyio.sleep(10)
        assert len(fired_at()["acme"]) == 2


async def test_claims_that_cant_be_renewed_let_no_others_run_out() -> None:
    storage = Troubled()
    async with opened(storage, claim_ttl=30, polling_interval=5) as runtime:
        script("x", sleeps(100))
        await schedule(runtime, 10, AsyncBench)
        await anyio.sleep(12)
        storage.refused.add("renew")
        await anyio.sleep(200)
        found = fired_at()
        assert found["aaa"] == found["zoo"] == [10]
        assert await runtime.tenant("zoo").get(AsyncBench, "zoo").read() == ["x"]
