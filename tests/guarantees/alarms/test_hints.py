"""Hints between runtimes on one storage: their senders, their receivers, and their effects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
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
from trio_durable.scheduler import WheelScheduler
from trio_durable.storage import Commit, DueAlarm, Hints, Reader, Storage, StorageFault, Writer
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
    """What several processes have in common: objects in memory, and a way to send hints."""

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.writer = self.memory.open_writer()
        self.listeners: list[_Hints] = []
        self.sent: list[int] = []

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

    def open_hints(self, heard: Callable[[int], object]) -> Hints:
        hints = _Hints(self.place, heard)
        self.place.listeners.append(hints)
        return hints


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


class _Hints(Hints):
    def __init__(self, place: Place, heard: Callable[[int], object]) -> None:
        self._place = place
        self.heard = heard

    def send(self, available_at: int) -> None:
        self._place.sent.append(available_at)
        for other in self._place.listeners:
            if other is not self:
                other.heard(available_at)

    def close(self) -> None:
        self._place.listeners.remove(self)


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


# --- what the setter doesn't deliver -------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 0.2, 5, 1000])
async def test_an_alarm_that_its_setter_does_not_serve_fires_on_time(after: float) -> None:
    place = Place()
    async with serving(place.process(), Page) as web, serving(place.process(), Export):
        await passed(10)
        began = anyio.current_time()
        await web.schedule_alarm(Export, "e", "run", after=after)
        await passed(after + 0.15)
        assert since(began) == [pytest.approx(after, abs=0.02)]


async def test_alarms_of_tenants_that_their_setter_does_not_serve_fire_on_time() -> None:
    place = Place()
    async with serving(place.process(), Page) as web, serving(place.process(), Export):
        await passed(10)
        began = anyio.current_time()
        await web.tenant("acme").schedule_alarm(Export, "e", "run", after=5)
        await passed(6)
        assert since(began) == [5]


async def test_what_a_runtime_leaves_when_it_closes_fires_on_time() -> None:
    place = Place()
    async with serving(place.process(), Export):
        async with serving(place.process(), Export) as other:
            await passed(10)
            began = anyio.current_time()
            await other.get(Export, "e").begin(100)
            await passed(50)
        await passed(51)
        assert since(began) == [100]


async def test_what_a_runtime_gives_back_when_it_closes_is_taken_up_at_once() -> None:
    place = Place()
    async with serving(place.process(), Export):
        async with serving(place.process(), Export, grace_period=0) as other:
            await passed(10)
            began = anyio.current_time()
            await other.schedule_alarm(Export, "e", "slow", after=5)
            await passed(10)
            assert since(began) == [5]
        await passed(0.2)
        assert since(began) == [5, pytest.approx(10, abs=0.2)]


async def test_what_a_runtime_leaves_when_it_is_cancelled_fires_on_time() -> None:
    place = Place()
    async with serving(place.process(), Export):
        await passed(10)
        began = anyio.current_time()
        with anyio.CancelScope() as scope:
            async with serving(place.process(), Export) as other:
                await other.get(Export, "e").begin(100)
                scope.cancel()
        await passed(101)
        assert since(began) == [100]


async def test_others_are_told_of_what_there_is_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    defaults = WheelScheduler.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "capacity", 4)
    place = Place()
    async with serving(place.process(), Export) as runtime:
        await passed(10)
        for number in range(4):
            await runtime.schedule_alarm(Export, str(number), "run", after=100 + number)
        assert place.sent == []
        await runtime.schedule_alarm(Export, "last", "run", after=200)
        (due,) = await runtime.list_alarms(Export, "last")
        assert place.sent == [round(due.due_at.timestamp() * 1e6)]


# --- and what it does ----------------------------------------------------------------------------


async def test_nobody_is_told_of_what_its_setter_delivers() -> None:
    place = Place()
    own, others = place.process(), place.process()
    async with serving(own, Export) as runtime, serving(others, Export):
        await passed(10)
        looks = others.looks
        await runtime.get(Export, "e").begin(5)
        await runtime.schedule_alarm(Export, "f", "run", after=6)
        await passed(10)
        assert len(fired) == 2
        assert (place.sent, others.looks) == ([], looks)


async def test_nobody_is_told_of_what_was_not_committed() -> None:
    place = Place()
    own = place.process()
    async with serving(own, Page) as web:
        own.fails = True
        with pytest.raises(PersistenceError):
            await web.schedule_alarm(Export, "e", "run", after=5)
        own.fails = False
        assert place.sent == []
        await web.cancel_alarm(Export, "e", "run")
        assert place.sent == []


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


async def test_a_storage_without_hints_has_none() -> None:
    assert MemoryStorage().open_hints(print) is None


# --- looks ---------------------------------------------------------------------------------------


async def test_a_storm_of_hints_is_no_storm_of_looks() -> None:
    """One look, just before the first is due, is for all that were set until then."""
    place = Place()
    others = place.process()
    async with serving(place.process(), Page) as web, serving(others, Export):
        await passed(10)
        looks, began = others.looks, anyio.current_time()
        for number in range(500):
            await web.schedule_alarm(Export, str(number), "run", after=100)
            await passed(0.1)
        assert (len(place.sent), others.looks) == (500, looks)
        await passed(101)
        assert others.looks == looks + 1
        assert len(fired) == 500
        assert since(began)[0] == 100


async def test_a_storm_of_hints_of_what_is_due_at_once_makes_ten_looks_a_second_at_most() -> None:
    place = Place()
    others = place.process()
    async with serving(place.process(), Page) as web, serving(others, Export):
        await passed(10)
        looks = others.looks
        for number in range(1000):
            await web.schedule_alarm(Export, str(number), "run", after=0)
            await anyio.sleep(0.002)
        await passed(0.2)
        assert len(fired) == 1000
        assert others.looks - looks <= 10 * 2.2 + 1


async def test_a_hint_of_what_the_next_look_finds_anyhow_makes_no_other() -> None:
    place = Place()
    others = place.process()
    async with (
        serving(place.process(), Page) as web,
        serving(others, Export, polling_interval=30),
    ):
        await passed(10)
        looks = others.looks
        await web.schedule_alarm(Export, "e", "run", after=HOUR)
        await web.schedule_alarm(Export, "f", "run", after=45)
        await passed(46)
        assert len(fired) == 1
        assert others.looks == looks + 1


async def test_what_was_missed_is_looked_for_at_once() -> None:
    place = Place()
    others = place.process()
    async with serving(others, Export):
        await passed(10)
        (listener,) = place.listeners
        async with serving(place.process(), Page) as web:
            place.listeners.remove(listener)
            await web.schedule_alarm(Export, "e", "run", after=0)
            await passed(10)
            assert fired == []
            place.listeners.append(listener)
            listener.heard(0)
            await passed(0.01)
            assert len(fired) == 1


async def test_a_hint_to_a_runtime_that_is_closed_is_nothing() -> None:
    place = Place()
    async with serving(place.process(), Export):
        (listener,) = place.listeners
    assert place.listeners == []
    listener.heard(0)
    await settle()
