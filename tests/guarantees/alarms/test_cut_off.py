"""Alarms that the end of the runtime cuts off, by whatever way: no attempt is counted."""

from __future__ import annotations

import anyio
import pytest
from support.scripted import ScriptedStorage

from trio_durable import DurableObject, DurableRuntime, Retry, RuntimeClosed, alarm, handler

from .bench import errors

pytestmark = pytest.mark.anyio

ONCE = Retry(attempts=1)
closed_runtimes: list[DurableRuntime] = []


class Job(DurableObject):
    """Its alarms are dead letters after one failure."""

    @handler
    async def hang(self) -> None:
        await anyio.sleep_forever()

    @alarm(retry=ONCE)
    async def sleep(self) -> None:
        await anyio.sleep_forever()

    @alarm(retry=ONCE)
    async def call(self) -> None:
        await Job.hang("other")

    @alarm(retry=ONCE)
    async def call_in_group(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Job.hang, "other")
            tasks.start_soon(anyio.sleep_forever)

    @alarm(retry=ONCE)
    async def fail_when_called_in_vain(self) -> None:
        try:
            await Job.hang("other")
        except RuntimeClosed as error:
            raise KeyError("no answer") from error

    @alarm(retry=ONCE)
    async def fail_in_cleanup(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    @alarm(retry=Retry(attempts=1, initial=10))
    async def call_elsewhere(self) -> None:
        await closed_runtimes[0].get(Job, "a", timeout=None).hang()


def opened(storage: ScriptedStorage) -> DurableRuntime:
    return DurableRuntime(
        storage, objects=[Job], runner=storage.runner, grace_period=1, call_timeout=None
    )


async def attempts(storage: ScriptedStorage) -> list[tuple[str, int]]:
    async with opened(storage) as runtime:
        alarms = await runtime.list_alarms(Job, "a")
        assert await runtime.list_dead_letters(Job) == []
        return [(each.name, each.attempt) for each in alarms]


@pytest.mark.parametrize("name", ["sleep", "call", "call_in_group", "fail_when_called_in_vain"])
async def test_an_alarm_that_is_cut_off_with_its_app_counts_no_attempt(name: str) -> None:
    storage = ScriptedStorage()
    async with anyio.create_task_group() as app, opened(storage) as runtime:
        await runtime.schedule_alarm(Job, "a", name, after=0)
        await anyio.sleep(5)
        app.cancel_scope.cancel()
        await anyio.sleep(5)
    assert await attempts(storage) == [(name, 1)]


@pytest.mark.parametrize(
    "name", ["sleep", "call", "call_in_group", "fail_when_called_in_vain", "fail_in_cleanup"]
)
async def test_an_alarm_that_is_cut_off_after_the_grace_period_counts_no_attempt(name: str) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Job, "a", name, after=0)
        await anyio.sleep(5)
    assert await attempts(storage) == [(name, 1)]


async def test_an_alarm_that_calls_a_closed_runtime_is_tried_again_after_a_delay(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(":memory:") as other:
        closed_runtimes[:] = [other]
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Job, "a", "call_elsewhere", after=0)
        await anyio.sleep(60)
        assert 5 <= len(errors(caplog)) <= 12
        (waiting,) = await runtime.list_alarms(Job, "a")
        assert waiting.attempt == 1
        assert runtime.statistics().alarms_failed == 0
