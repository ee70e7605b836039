"""The auto-reset event: it wakes its waiter at once or later, and once."""

from __future__ import annotations

import math

import anyio
import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable._eventloop.running import running_loop
from trio_durable._eventloop.wakeup import Bell

pytestmark = pytest.mark.anyio


async def waited(bell: Bell, seconds: float) -> float:
    """For how long it waited."""
    start = anyio.current_time()
    await bell.wait(seconds)
    return anyio.current_time() - start


async def test_it_wakes_who_waits() -> None:
    bell = Bell(running_loop())
    async with calls() as group:
        outcome = group.start(waited, bell, 60)
        await anyio.sleep(5)
        assert not outcome.done
        bell.ring()
        await settle()
        assert outcome.value == pytest.approx(5)


async def test_it_wakes_at_once_who_waits_after_it_was_rung() -> None:
    bell = Bell(running_loop())
    bell.ring()
    assert await waited(bell, 60) == 0


@pytest.mark.parametrize("seconds", [0.0, 0.001, 7.5, 86_400.0])
async def test_it_wakes_when_it_is_time(seconds: float) -> None:
    bell = Bell(running_loop())
    assert await waited(bell, seconds) == pytest.approx(seconds, abs=1e-6)


async def test_without_a_time_only_ringing_wakes() -> None:
    bell = Bell(running_loop())
    async with calls() as group:
        outcome = group.start(waited, bell, math.inf)
        await anyio.sleep(30 * 86_400)
        assert not outcome.done
        bell.ring()
        await settle()
        assert outcome.done


async def test_it_wakes_once_however_often_it_was_rung() -> None:
    bell = Bell(running_loop())
    for _ in range(3):
        bell.ring()
    assert await waited(bell, 60) == 0
    assert await waited(bell, 60) == pytest.approx(60)


async def test_rung_twice_while_somebody_waits_it_wakes_once() -> None:
    bell = Bell(running_loop())
    async with calls() as group:
        outcome = group.start(waited, bell, 60)
        await settle()
        bell.ring()
        bell.ring()
        await settle()
        assert outcome.done
        assert await waited(bell, 60) == pytest.approx(60)


async def test_it_can_be_waited_for_again_and_again() -> None:
    bell = Bell(running_loop())
    async with calls() as group:
        for _ in range(3):
            outcome = group.start(waited, bell, 60)
            await anyio.sleep(1)
            bell.ring()
            await settle()
            assert outcome.value == pytest.approx(1)
            assert await waited(bell, 2) == pytest.approx(2)


async def test_after_its_time_it_is_as_new() -> None:
    bell = Bell(running_loop())
    await bell.wait(1)
    async with calls() as group:
        outcome = group.start(waited, bell, 60)
        await settle()
        assert not outcome.done
        bell.ring()
        await settle()
        assert outcome.value == 0


async def test_what_rings_just_as_the_time_is_up_is_not_lost() -> None:
    # Whether the wait that ends hears it or the next: somebody looks.
    bell = Bell(running_loop())
    seen = [False]
    looked: list[bool] = []

    async def look() -> None:
        while len(looked) < 4:
            await bell.wait(1)
            looked.append(seen[0])

    async with calls() as group:
        group.start(look)
        await anyio.sleep(1)
        seen[0] = True
        bell.ring()
        await anyio.sleep(10)
    assert looked[-1]
    assert sum(looked) >= 2


async def test_a_cancelled_wait_leaves_it_as_it_was() -> None:
    bell = Bell(running_loop())
    with anyio.move_on_after(1):
        await bell.wait(60)
        raise AssertionError("nobody rang")
    bell.ring()
    assert await waited(bell, 60) == 0
    assert await waited(bell, 5) == pytest.approx(5)


async def test_a_cancelled_wait_that_was_rung_for_wakes_the_next() -> None:
    bell = Bell(running_loop())
    async with calls() as group:
        outcome = group.start(bell.wait, 60)
        await settle()
        # In one go, so that the task that waits sees both when it next runs.
        outcome.cancel()
        bell.ring()
    if outcome.error is not None:
        assert await waited(bell, 60) == 0


async def test_the_caller_s_own_deadline_passes_through() -> None:
    bell = Bell(running_loop())
    with pytest.raises(TimeoutError):
        with anyio.fail_after(3):
            await bell.wait(math.inf)
