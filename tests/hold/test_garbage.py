"""Failed calls leave nothing to the garbage collector, and hold nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import anyio
import anyio.lowlevel
import pytest
from support.clock import settle

from trio_durable import CallTimeout, DurableObject, DurableRuntime, handler

pytestmark = pytest.mark.anyio

CALLS = 100
marks: list[weakref.ref[BaseException]] = []


class Refused(Exception):
    pass


def new_error(payload: bytes) -> Refused:
    error = Refused(payload)
    marks.append(weakref.ref(error))
    return error


class Failing(DurableObject):
    count: int = 0

    @handler
    def fail(self, payload: bytes) -> None:
        raise new_error(payload)

    @handler
    def fail_after_a_change(self, payload: bytes) -> None:
        self.count += 1
        raise new_error(payload)

    @handler
    async def fail_async(self, payload: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        raise new_error(payload)

    @handler
    async def fail_within(self, payload: bytes) -> None:
        await Failing.fail("another", payload)

    @handler
    async def slow(self, payload: bytes) -> None:
        await anyio.sleep(2)

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count


@pytest.fixture
def no_collector() -> Iterator[None]:
    marks.clear()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", ["fail", "fail_after_a_change", "fail_async", "fail_within"])
async def test_an_error_goes_with_its_caller(name: str) -> None:
    async with DurableRuntime(":memory:", call_timeout=1000) as runtime:
        call: Callable[[bytes], Awaitable[None]] = getattr(runtime.get(Failing, "a"), name)
        await Failing.add("a")
        for _ in range(CALLS):
            try:
                await call(b"payload")
            except Refused:
                pass
            else:
                raise AssertionError
        await settle()
        assert len(marks) == CALLS
        alive = [mark() for mark in marks if mark() is not None]
        assert not alive


@pytest.mark.usefixtures("no_collector")
async def test_a_timeout_leaves_no_cycle() -> None:
    async with DurableRuntime(":memory:") as runtime:
        slow = runtime.get(Failing, "a", timeout=1).slow
        kept: list[weakref.ref[BaseException]] = []
        for _ in range(5):
            try:
                await slow(b"payload")
            except CallTimeout as error:
                kept.append(weakref.ref(error))
        await anyio.sleep(20)
        assert [ref() for ref in kept] == [None] * len(kept)
        assert len(kept) == 5
