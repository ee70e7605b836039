"""Exceptions that handlers raise, of every kind, are their callers' and nothing else's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import anyio.lowlevel
import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable import DurableObject, DurableRuntime, HandlerCancelled, alarm, handler
from trio_durable.testing import fire_alarm

pytestmark = pytest.mark.anyio


class RefusesNotes(Exception):
    def add_note(self, note: str, /) -> NoReturn:
        raise RuntimeError("no notes")


class NotesAreATuple(Exception):
    def __init__(self) -> None:
        self.__notes__ = ("a tuple",)  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int = 7


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Indivisible(ExceptionGroup[Exception]):
    def derive(self, excs: Any, /) -> NoReturn:
        raise RuntimeError("no group like this")


class Panic(BaseException):
    """As pytest's Failed, and the panics of extension modules."""


ODD: list[Callable[[], BaseException]] = [
    RefusesNotes,
    NotesAreATuple,
    Frozen,
    Unprintable,
    lambda: Indivisible("group", [ValueError()]),
    Panic,
    lambda: BaseExceptionGroup("group", [Panic()]),
    StopIteration,
    StopAsyncIteration,
]
odd = pytest.mark.parametrize("make", ODD, ids=lambda make: getattr(make, "__name__", "group"))

raised: list[BaseException] = []
rung: list[str] = []


class Odd(DurableObject):
    count: int = 0

    @handler
    def fail(self) -> None:
        self.count += 100
        raise raised[-1]

    @handler
    async def fail_async(self) -> None:
        self.count += 100
        await anyio.lowlevel.checkpoint()
        raise raised[-1]

    @handler
    async def hold(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count

    @alarm
    def ring(self) -> None:
        rung.append("once")
        if len(rung) == 1:
            raise raised[-1]


async def outcome(call: Callable[[], Any]) -> BaseException:
    """What a call raises."""
    try:
        await call()
    except BaseException as error:  # noqa: BLE001
        return error
    raise AssertionError("it raised nothing")


async def serves(runtime: DurableRuntime) -> None:
    """The object is as it was before the turn that failed, and so are the others."""
    before = (await runtime.get_state(Odd, "a")).count
    assert before < 100
    assert await Odd.add("a") == before + 1
    await Odd.add("another")


def is_as_raised(error: BaseException) -> bool:
    # Python itself makes errors of these where a coroutine raises them.
    is_stop = isinstance(raised[-1], (StopIteration, StopAsyncIteration))
    return error is raised[-1] or (is_stop and isinstance(error, RuntimeError))


@odd
async def test_a_def_handlers(make: Callable[[], BaseException]) -> None:
    raised.append(make())
    async with DurableRuntime(":memory:") as runtime:
        await Odd.add("a")
        assert is_as_raised(await outcome(lambda: Odd.fail("a")))
        await serves(runtime)


@odd
async def test_a_queued_def_handlers(make: Callable[[], BaseException]) -> None:
    raised.append(make())
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        await Odd.add("a")
        group.start(Odd.hold, "a", 1)
        await settle()
        assert is_as_raised(await outcome(lambda: Odd.fail("a")))
        await serves(runtime)


@odd
async def test_an_async_handlers(make: Callable[[], BaseException]) -> None:
    raised.append(make())
    async with DurableRuntime(":memory:") as runtime:
        await Odd.add("a")
        assert is_as_raised(await outcome(lambda: Odd.fail_async("a")))
        await serves(runtime)


@odd
async def test_an_alarms(make: Callable[[], BaseException]) -> None:
    raised.append(make())
    rung.clear()
    async with DurableRuntime(":memory:") as runtime:
        await Odd.add("a")
        await runtime.schedule_alarm(Odd, "a", "ring", after=1)
        await anyio.sleep(100)
        assert rung == ["once", "once"]  # it failed, and was tried again
        await serves(runtime)


async def a_cancellation_of_another_task() -> BaseException:
    """As a cache keeps it that stores what its work has raised, and raises that to all."""
    kept: list[BaseException] = []
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.sleep(1)
        except BaseException as error:
            kept.append(error)
            raise
    return kept[0]


@pytest.mark.parametrize("name", ["fail", "fail_async"])
@pytest.mark.parametrize("form", ["alone", "with an error", "in a group alone"])
async def test_the_cancellation_of_another_task(name: str, form: str) -> None:
    foreign = await a_cancellation_of_another_task()
    async with DurableRuntime(":memory:") as runtime:
        await Odd.add("a")
        if form == "alone":
            raised.append(foreign)
        elif form == "with an error":
            raised.append(BaseExceptionGroup("both", [foreign, ValueError("mine")]))
        else:
            raised.append(BaseExceptionGroup("one", [foreign]))
        error = await outcome(getattr(runtime.get(Odd, "a"), name))
        if form == "with an error":
            assert isinstance(error, ExceptionGroup)
            [mine] = error.exceptions
            assert str(mine) == "mine"
        else:
            assert isinstance(error, HandlerCancelled)
        await serves(runtime)


async def test_fire_alarm_raises_what_the_handler_has_raised() -> None:
    raised.append(Panic())
    rung.clear()
    async with DurableRuntime(":memory:") as runtime:
        await runtime.schedule_alarm(Odd, "a", "ring", after=1000)
        assert await outcome(lambda: fire_alarm(runtime, Odd, "a", "ring")) is raised[-1]
        await Odd.add("a")
