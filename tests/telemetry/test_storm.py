"""Start and end events: every start has exactly one end, whatever happens."""

from __future__ import annotations

import contextlib
import random
from typing import get_args

import anyio
import pytest
from support.recording import Recorder
from support.scripted import ScriptedStorage

from trio_durable import DurableError, DurableObject, DurableRuntime, Retry, alarm, handler
from trio_durable.storage import StorageFault
from trio_durable.telemetry import (
    Instrument,
    Left,
    MessageBuried,
    MessageDelivery,
    MessageSent,
    Point,
    Save,
    Timed,
)

from .objects import Wrong


class Ship(DurableObject, hibernate_after=0.2, shutdown_after=0.6, mailbox_size=3):
    knots: int = 0

    async def after_load(self) -> None:
        await anyio.sleep(0.01)
        if self.knots % 5 == 4:
            raise Wrong("after_load")

    @handler
    def sail(self, fails: bool) -> int:
        self.knots += 1
        self.ctx.schedule_alarm("bell", after=self.knots % 3)
        if fails:
            raise Wrong("def")
        return self.knots

    @handler
    async def sail_slowly(self, seconds: float, fails: bool, other: str | None) -> int:
        self.knots += 1
        await anyio.sleep(seconds)
        if seconds > 0.2:
            await self.ctx.commit()
        if other is not None:
            await Ship.sail(other, fails)
        if fails:
            raise Wrong("async")
        self.knots += 1
        return self.knots

    @handler(readonly=True)
    def log(self) -> int:
        return self.knots

    @handler
    def sink(self) -> None:
        self.ctx.delete()

    @alarm(retry=Retry(initial=0.1, attempts=3))
    async def bell(self) -> None:
        await anyio.sleep(0.05)
        if self.knots % 2:
            raise Wrong("alarm")
        self.knots += 1


async def storm(seed: int, *instruments: Instrument) -> None:
    """Callers that call, wait, give up and time out, on a storage that fails now and then."""
    chance = random.Random(seed)
    storage = ScriptedStorage()
    ids = [str(number) for number in range(6)]

    async def order(runtime: DurableRuntime, ship: str) -> None:
        fails = chance.random() < 0.2
        handle = runtime.get(Ship, ship, timeout=chance.choice([0.05, 0.3, 5]))
        match chance.randrange(9):
            case 0:
                await handle.sail(fails)
            case 1 | 2:
                other = chance.choice([None, None, *ids])
                await handle.sail_slowly(chance.choice([0, 0.1, 0.4]), fails, other)
            case 3:
                await handle.log()
            case 4:
                await handle.sink()
            case 5:
                await runtime.stop(Ship, ship)
            case 6:
                await runtime.get_state(Ship, ship)
            case 7:
                await runtime.schedule_alarm(Ship, ship, "bell", after=0.1)
            case 8:
                await runtime.cancel_all_alarms(Ship, ship)

    async def sailor(runtime: DurableRuntime) -> None:
        for _ in range(25):
            with contextlib.suppress(DurableError, Wrong):
                with anyio.move_on_after(chance.choice([0, 0.02, 0.5, 10])):
                    await order(runtime, chance.choice(ids))
            await anyio.sleep(chance.choice([0, 0.1, 1]))

    async def weather() -> None:
        while True:
            await anyio.sleep(chance.uniform(0.05, 0.5))
            match chance.randrange(5):
                case 0:
                    storage.fail_commits(StorageFault("a wave"), None, StorageFault("another"))
                case 1:
                    storage.fail_loads(StorageFault("fog"))
                case 2:
                    storage.overwrite("Ship", chance.choice(ids), b'{"knots":100}')
                case 3:
                    storage.fail_alarm_work(StorageFault("lightning"))
                case 4:
                    with storage.held("writer"):
                        await anyio.sleep(0.1)

    with contextlib.suppress(TimeoutError):
        with anyio.fail_after(chance.choice([5, 12, 100])):  # in the middle of it, mostly
            async with (
                DurableRuntime(
                    storage,
                    runner=storage.runner,
                    objects=[Ship],
                    instruments=instruments,
                    grace_period=chance.choice([0, 1]),
                    max_resident=4,
                    polling_interval=1,
                ) as runtime,
                anyio.create_task_group() as tasks,
            ):
                tasks.start_soon(weather)
                async with anyio.create_task_group() as sailors:
                    for _ in range(8):
                        sailors.start_soon(sailor, runtime)
                    if seed % 3 == 0:
                        await anyio.sleep(4)
                        sailors.cancel_scope.cancel()
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(12))
async def test_after_a_storm_all_that_began_has_ended_once(seed: int) -> None:
    recorder = Recorder()
    await storm(seed, recorder)
    recorder.check()
    assert len(recorder.told) > 100
    # What fails changes nothing, unless it has committed a part.
    failed = {told.event for told in recorder.told if told.what == "exception"}
    saved = [turn for save in recorder.all(Save, "stop") for turn in save.turns]
    assert not [turn for turn in saved if turn in failed and turn.handler != "sail_slowly"]


MESSAGES = {MessageBuried, MessageDelivery, MessageSent}
"""Ships send none; see `test_messages`."""


@pytest.mark.anyio
async def test_storms_have_everything_in_them() -> None:
    recorder = Recorder()
    for seed in range(12):
        await storm(seed, recorder)
    told = {type(told.event) for told in recorder.told}
    assert told == {*get_args(Timed), *get_args(Point)} - MESSAGES
    failed = {type(told.event) for told in recorder.told if told.what == "exception"}
    assert failed == set(get_args(Timed)) - MESSAGES
    saved = {turn.handler for save in recorder.all(Save) for turn in save.turns}
    assert saved >= {"sail", "sail_slowly", "bell"}
    assert {left.reason for left in recorder.all(Left)} == {"idle", "evicted", "ended", "closed"}
