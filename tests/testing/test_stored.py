"""Assertions on stored state, and waiting for a condition."""

from __future__ import annotations

import anyio
import anyio.lowlevel
import pytest

from trio_durable import DurableRuntime, InvalidObjectId, UnknownObjectType
from trio_durable.testing import assert_eventually, assert_persisted, get_persisted_state

from .objects import Tally

pytestmark = pytest.mark.anyio


async def test_stored_state_is_read_without_the_object(durable_runtime: DurableRuntime) -> None:
    runtime = durable_runtime
    assert await get_persisted_state(runtime, Tally, "a") is None
    await runtime.get(Tally, "a").add(3)
    await runtime.stop(Tally, "a")
    assert await get_persisted_state(runtime, Tally, "a") == Tally(count=3)
    assert await get_persisted_state(runtime, "testing.Tally", "a") == Tally(count=3)
    assert runtime.whereis(Tally, "a") is None
    await runtime.delete(Tally, "a")
    assert await get_persisted_state(runtime, Tally, "a") is None


async def test_a_turn_under_way_is_not_stored_yet(durable_runtime: DurableRuntime) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(durable_runtime.get(Tally, "a").add_slowly)
        await anyio.sleep(0.5)
        assert await get_persisted_state(durable_runtime, Tally, "a") is None
    await assert_persisted(durable_runtime, Tally, "a", count=1)


async def test_assert_persisted_says_what_there_is(durable_runtime: DurableRuntime) -> None:
    runtime = durable_runtime
    with pytest.raises(AssertionError) as caught:
        await assert_persisted(runtime, Tally, "a", count=1)
    assert str(caught.value) == (
        "expected testing.Tally('a') to be stored with count=1, but it isn't stored"
    )
    with pytest.raises(AssertionError, match=r"\('a'\) to be stored, but it isn't stored"):
        await assert_persisted(runtime, Tally, "a")
    await runtime.get(Tally, "a").add(2)
    await assert_persisted(runtime, Tally, "a")
    await assert_persisted(runtime, "testing.Tally", "a", count=2, log=[])
    with pytest.raises(AssertionError) as caught:
        await assert_persisted(runtime, Tally, "a", count=1, log=[])
    assert str(caught.value) == (
        "expected testing.Tally('a') to be stored with count=1, log=[], but it has count=2"
    )
    with pytest.raises(TypeError, match=r"Tally has no field cuont \(it has: count, log\)"):
        await assert_persisted(runtime, Tally, "a", cuont=2)
    with pytest.raises(InvalidObjectId):
        await assert_persisted(runtime, Tally, "")
    with pytest.raises(UnknownObjectType):
        await get_persisted_state(runtime, "nothing", "a")


async def test_eventually_a_condition_holds() -> None:
    began = anyio.current_time()
    await assert_eventually(lambda: anyio.current_time() >= began + 3)
    assert 3 <= anyio.current_time() - began < 3.1

    async def later() -> bool:
        await anyio.lowlevel.checkpoint()
        assert anyio.current_time() >= began + 4, "too early"
        return True

    await assert_eventually(later, interval=0.5)
    assert 4 <= anyio.current_time() - began < 4.6
    await assert_eventually(lambda: True, timeout=0)


async def test_eventually_says_what_it_last_saw() -> None:
    began = anyio.current_time()

    async def never() -> int:
        return 0

    def refuses() -> bool:
        raise AssertionError("count is 2")

    with pytest.raises(
        AssertionError, match=r"never to hold within 5 s; at the last call it returned 0$"
    ):
        await assert_eventually(never)
    assert 5 <= anyio.current_time() - began < 5.1
    with pytest.raises(AssertionError, match=r"within 0\.1 s; .* it raised: count is 2$") as caught:
        await assert_eventually(refuses, timeout=0.1)
    assert str(caught.value.__cause__) == "count is 2"


async def test_eventually_lets_other_errors_through_and_refuses_nonsense() -> None:
    with pytest.raises(ZeroDivisionError):
        await assert_eventually(lambda: 1 / 0)
    with pytest.raises(ValueError, match="interval must be more than 0"):
        await assert_eventually(lambda: True, interval=0)
    with pytest.raises(ValueError, match="timeout must be a finite time"):
        await assert_eventually(lambda: True, timeout=-1)
    with pytest.raises(TypeError, match="condition must be a function"):
        await assert_eventually(True)  # type: ignore[arg-type]
