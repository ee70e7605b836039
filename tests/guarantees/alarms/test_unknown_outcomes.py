"""Alarms of commits whose outcome is unknown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import anyio
import pytest
from support.clock import settle

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    PersistenceError,
    alarm,
    handler,
)
from trio_durable.storage import Commit, DueAlarm, Reader, Storage, StorageFault, Writer
from trio_durable.storage._forwarding import ForwardingReader, ForwardingWriter

pytestmark = pytest.mark.anyio

HOUR = 3600.0
fired: list[float] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    fired.clear()


class Page(DurableObject):
    views: int = 0

    @handler
    def view(self) -> None:
        self.views += 1


class Export(DurableObject):
    runs: int = 0

    @handler
    def begin(self, after: float) -> None:
        self.ctx.schedule_alarm("run", after=after)

    @alarm
    def run(self) -> None:
        fired.append(anyio.current_time())
        self.runs += 1

    @alarm
    async def slow(self) -> None:
        fired.append(anyio.current_time())
        await anyio.sleep(1000 if len(fired) == 1 else 0)
        self.runs += 1


class Place:
    """What several processes have in common: objects in memory."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.writer = self.memory.open_writer()

    def process(self) -> Side:
        """One process's storage."""
        return Side(self)


class Side(Storage):
    def __init__(self, place: Place) -> None:
        self.place = place
        self.looks = 0
        self.fails = False
        self.loses_answers = False

    @property
    def location(self) -> str:
        return ":place:"

    def open_writer(self) -> Writer:
        return _Writer(self)

    def open_reader(self) -> Reader:
        return _Reader(self)


class _Writer(ForwardingWriter):
    def __init__(self, side: Side) -> None:
        super().__init__(side.place.writer)
        self._side = side

    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        if self._side.fails:
            raise StorageFault("on purpose")
        stale = super().commit(batch, now)
        if self._side.loses_answers:
            raise StorageFault("on purpose, after it was applied")
        return stale

    def close(self) -> None:
        pass  # the others go on


class _Reader(ForwardingReader):
    def __init__(self, side: Side) -> None:
        super().__init__(side.place.memory.open_reader())
        self._side = side

    def due_alarms(
        self,
        before: int,
        after: DueAlarm | None,
        limit: int,
        except_types: Collection[str],
        tenant: str = "",
    ) -> list[DueAlarm]:
        self._side.looks += after is None
        return super().due_alarms(before, after, limit, except_types, tenant)


def serving(side: Side, *objects: type[DurableObject], **options: Any) -> DurableRuntime:
    given = {"polling_interval": HOUR, **options}
    return DurableRuntime(side, objects=objects, runner=InlineRunner, **given)


async def passed(seconds: float) -> None:
    """Let what is under way end, and then so much time pass."""
    await settle()
    await anyio.sleep(seconds)
    await settle()


def since(began: float) -> list[float]:
    return [round(at - began, 2) for at in fired]


@pytest.mark.parametrize("how", ["turn", "outside"])
async def test_an_alarm_of_a_commit_whose_outcome_is_unknown_fires_on_time(how: str) -> None:
    """Not when somebody looks the next time by habit: it may have been set all the same."""
    place = Place()
    own = place.process()
    async with serving(own, Export) as runtime:
        await passed(10)
        began = anyio.current_time()
        own.loses_answers = True
        setting = (
            runtime.get(Export, "e").begin(5)
            if how == "turn"
            else runtime.schedule_alarm(Export, "e", "run", after=5)
        )
        with pytest.raises(PersistenceError):
            await setting
        own.loses_answers = False
        await passed(6)
        assert since(began) == [pytest.approx(5, abs=0.02)]
