"""Races: invariants under two events in the same moment."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import anyio
import attrs
import pytest
from support.clock import settle
from support.tasks import calls

from trio_durable import (
    CallTimeout,
    DefinitionError,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MailboxFull,
    MemoryStorage,
    RuntimeClosed,
    current_runtime,
    handler,
)
from trio_durable.storage import Commit, StorageFault, Writer
from trio_durable.storage._forwarding import ForwardingWriter

pytestmark = pytest.mark.anyio


class Slow(DurableObject, call_timeout=1, mailbox_size=1):
    count: int = 0
    log: list[str] = attrs.field(factory=list)

    @handler
    async def increment(self, seconds: float = 1) -> int:
        self.count += 1
        await anyio.sleep(seconds)
        return self.count

    @handler
    async def note(self, name: str, seconds: float) -> None:
        self.log.append(name)
        await anyio.sleep(seconds)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log


class _FailingWriter(ForwardingWriter):
    def commit(self, batch: Sequence[Commit], now: int) -> Collection[int]:
        raise StorageFault("the disk is full")


class _FailingStorage(MemoryStorage):
    def open_writer(self) -> Writer:
        return _FailingWriter(super().open_writer())


async def test_a_call_that_expires_as_its_turn_ends_does_not_pass_the_gate() -> None:
    outcomes: Tally[str] = Tally()
    async with DurableRuntime(_FailingStorage(), runner=InlineRunner) as runtime:
        for number in range(20):
            try:
                await runtime.get(Slow, str(number)).increment()
            except Exception as error:  # noqa: BLE001  # counted by type
                outcomes[type(error).__name__] += 1
            else:
                outcomes["acknowledged"] += 1
    assert not outcomes["acknowledged"], outcomes


async def test_a_newcomer_does_not_make_room_for_itself() -> None:
    at_once = most = 0

    class Watched(DurableObject):
        count: int = 0

        @handler
        async def hold(self) -> None:
            await anyio.sleep(5)

        @handler
        async def increment(self) -> int:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await anyio.sleep(0.1)
            self.count += 1
            at_once -= 1
            return self.count

    unlimited = DurableRuntime(":memory:", max_resident=1, call_timeout=None)
    async with unlimited as runtime, calls() as group:
        group.start(runtime.get(Watched, "busy").hold)
        await settle()
        outcomes = [group.start(runtime.get(Watched, "b").increment) for _ in range(3)]
        await anyio.sleep(6)
        assert sorted(outcome.value for outcome in outcomes) == [1, 2, 3]
    assert most == 1


async def test_a_call_whose_turn_has_begun_is_not_told_that_the_mailbox_was_full() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        slow = runtime.get(Slow, "a", timeout=5)
        group.start(slow.note, "first", 3)
        await anyio.sleep(0.1)
        group.start(slow.note, "second", 0.1)
        await anyio.sleep(0.1)
        third = group.start(slow.note, "third", 3)
        await anyio.sleep(10)
        assert type(third.error) is CallTimeout
        assert not isinstance(third.error, MailboxFull)
        assert await slow.read() == ["first", "second", "third"]


@pytest.mark.parametrize("warm", [False, True])
async def test_a_shielded_cleanup_can_call_an_object_whose_worker_was_cancelled(warm: bool) -> None:
    reached = False
    with anyio.CancelScope() as scope:
        async with DurableRuntime(":memory:") as runtime:
            slow = runtime.get(Slow, "a")
            if warm:
                await slow.increment(0)
            scope.cancel()
            try:
                await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(0.01)
                    began = anyio.current_time()
                    # Its worker runs in a cancelled nursery. Whether it is let finish is up to the
                    # event loop (on trio it isn't); either way its caller doesn't hang.
                    with suppress(RuntimeClosed):
                        await slow.increment(0.1)
                    assert anyio.current_time() - began < 1
                    reached = True
    assert reached


async def test_a_runtime_that_could_not_start_serves_nothing() -> None:
    class Fine(DurableObject):
        @handler
        def ping(self) -> None:
            pass

    class Broken(DurableObject):
        value: complex = 1j

    runtime = DurableRuntime(":memory:", objects=[Fine, Broken])
    with pytest.raises(DefinitionError):
        await runtime.__aenter__()
    with pytest.raises(RuntimeClosed):
        runtime.get(Fine, "a")
    with pytest.raises(RuntimeClosed):
        await runtime.call(Fine, "a", "ping")


async def test_checking_a_state_does_not_touch_it() -> None:
    def meddle(data: Any) -> Any:
        if data:
            data.append("made")
        return data

    class Meddling(DurableObject):
        data: Any = attrs.field(factory=list, converter=meddle)

        @handler
        def append(self, item: str) -> Any:
            self.data.append(item)
            return self.data

        @handler(readonly=True)
        def read(self) -> Any:
            return self.data

    async with DurableRuntime(":memory:") as runtime:
        meddling = runtime.get(Meddling, "a")
        assert await meddling.append("x") == ["x"]
        assert await meddling.read() == ["x"]
        await runtime.stop(Meddling, "a")
        assert await meddling.read() == ["x"]


async def test_after_load_is_in_its_objects_runtime() -> None:
    found = []

    class Curious(DurableObject):
        def after_load(self) -> None:
            found.append(current_runtime() is self.ctx.runtime)

        @handler
        def ping(self) -> None:
            pass

    async with DurableRuntime(":memory:") as first, DurableRuntime(":memory:"):
        await first.get(Curious, "a").ping()
    assert found == [True]


async def test_an_object_that_deleted_itself_leaves_memory() -> None:
    class Ephemeral(DurableObject):
        count: int = 0

        @handler
        def increment(self) -> int:
            self.count += 1
            return self.count

        @handler
        def remove(self) -> None:
            self.ctx.delete()

    async with DurableRuntime(":memory:") as runtime:
        ephemeral = runtime.get(Ephemeral, "a")
        assert await ephemeral.increment() == 1
        await ephemeral.remove()
        assert runtime.whereis(Ephemeral, "a") is None
        assert not await runtime.exists(Ephemeral, "a")
        assert await ephemeral.increment() == 1
