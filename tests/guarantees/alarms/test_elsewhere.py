"""Alarms of classes that other runtimes serve: one process sets them, another delivers them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import anyio
import pytest

from trio_durable import (
    DefinitionError,
    DurableObject,
    DurableRuntime,
    MemoryStorage,
    UnknownObjectType,
    alarm,
    handler,
)

pytestmark = pytest.mark.anyio


class Page(DurableObject):
    """What the one process serves."""

    views: int = 0

    @handler
    async def order(self) -> None:
        await self.ctx.runtime.schedule_alarm(Export, "e", "run", after=1)


class Export(DurableObject, name="Elsewhere"):  # as others are called Export, too
    """What the other serves."""

    runs: int = 0

    @handler
    def count(self) -> int:
        return self.runs

    @alarm
    def run(self) -> None:
        self.runs += 1


def web(storage: MemoryStorage) -> DurableRuntime:
    return DurableRuntime(storage, objects=[Page])


def worker(storage: MemoryStorage) -> DurableRuntime:
    return DurableRuntime(storage, objects=[Export], polling_interval=0.1)


async def delivered(storage: MemoryStorage, object_id: str = "e") -> int:
    """How often the alarm was handled, once a worker had its time."""
    async with worker(storage) as runtime:
        while runtime.statistics().alarms_waiting or await runtime.list_alarms(Export, object_id):
            await anyio.sleep(1)
        return await runtime.get(Export, object_id).count()


@pytest.mark.parametrize("object_type", [Export, "Elsewhere"], ids=["class", "name"])
async def test_an_alarm_of_a_class_that_is_served_elsewhere_is_set_for_those(
    object_type: type[Export] | str,
) -> None:
    storage = MemoryStorage()
    async with web(storage) as runtime:
        await runtime.schedule_alarm(object_type, "e", "run", after=1)
        (listed,) = await runtime.list_alarms(object_type, "e")
        assert (listed.name, listed.key.object_id) == ("run", "e")
    assert await delivered(storage) == 1


async def test_what_serves_no_class_of_an_alarm_lets_it_be_when_it_is_due() -> None:
    storage = MemoryStorage()
    async with web(storage) as runtime:
        await anyio.sleep(1)  # or the runtime's first look at the table would be to come
        await runtime.schedule_alarm(Export, "e", "run", after=1)
        await anyio.sleep(300)
        (listed,) = await runtime.list_alarms(Export, "e")
        assert (listed.attempt, listed.last_error) == (1, None)
        statistics = runtime.statistics()
        assert (statistics.alarms_failed, statistics.alarms_waiting) == (0, 0)
    assert await delivered(storage) == 1


async def test_a_turn_sets_alarms_of_classes_that_are_served_elsewhere() -> None:
    storage = MemoryStorage()
    async with web(storage) as runtime:
        await runtime.get(Page, "p").order()
    assert await delivered(storage) == 1


async def test_alarms_of_classes_that_are_served_elsewhere_can_be_cancelled() -> None:
    storage = MemoryStorage()
    async with web(storage) as runtime:
        for name in ("run", "other"):
            await runtime.schedule_alarm(Export, "e", name, after=1)
        await runtime.cancel_alarm(Export, "e", "run")
        assert [listed.name for listed in await runtime.list_alarms(Export, "e")] == ["other"]
        await runtime.cancel_all_alarms("Elsewhere", "e")
        assert await runtime.list_alarms(Export, "e") == []
    assert await delivered(storage) == 0


async def test_tenants_set_alarms_of_classes_that_are_served_elsewhere() -> None:
    storage = MemoryStorage()
    async with web(storage) as runtime:
        acme = runtime.tenant("acme")
        await acme.schedule_alarm(Export, "e", "run", after=1)
        assert await runtime.list_alarms(Export, "e") == []
        await runtime.drop_tenant("acme")
        assert await acme.list_alarms(Export, "e") == []
        await acme.schedule_alarm(Export, "e", "run", after=1)
    async with worker(storage) as runtime:
        await anyio.sleep(2)
        assert await runtime.tenant("acme").get(Export, "e").count() == 1


async def test_objects_of_classes_that_are_served_elsewhere_are_still_refused() -> None:
    async with web(MemoryStorage()) as runtime:
        await runtime.schedule_alarm(Export, "e", "run", after=1)
        for attempt in (
            runtime.call("Elsewhere", "e", "count"),
            runtime.ensure_started(Export, "e"),
            runtime.put_state(Export, "e", Export()),
            runtime.exists(Export, "e"),
            runtime.delete(Export, "e"),
        ):
            with pytest.raises(UnknownObjectType, match="known: Page"):
                await attempt


async def test_alarms_of_what_is_no_class_of_objects_are_refused() -> None:
    class Base(DurableObject, ABC):
        @abstractmethod
        def price(self) -> int: ...

    async with web(MemoryStorage()) as runtime:
        with pytest.raises(UnknownObjectType, match="'Exprot'"):
            await runtime.schedule_alarm("Exprot", "e", "run", after=1)
        wrong: tuple[Any, ...] = (Base, int, [])
        for what in wrong:
            with pytest.raises(DefinitionError):
                await runtime.schedule_alarm(what, "e", "run", after=1)
