"""What a turn hands on waits for the commits that it depends on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime, threaded_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls

from trio_durable import (
    CallTimeout,
    DurableObject,
    Objects,
    PersistenceError,
    current_runtime,
    handler,
)
from trio_durable.storage import StorageFault

pytestmark = pytest.mark.anyio


class Callee(DurableObject):
    heard: int = 0

    @handler
    def hear(self, number: int) -> None:
        self.heard = number

    @handler(readonly=True)
    async def relay(self, number: int) -> None:
        await Callee.hear("relayed", number)

    @handler(readonly=True)
    def read(self) -> int:
        return self.heard


class Caller(DurableObject):
    number: int = 1

    @handler
    def take(self) -> int:
        self.number += 1
        return self.number

    @handler
    async def tell(self, way: str) -> None:
        await WAYS[way](self.number)

    @handler(readonly=True)
    async def ask(self) -> int:
        return await Callee.read("a")


async def put(number: int) -> None:
    await current_runtime().put_state(Callee, "a", Callee(heard=number))


async def delete(number: int) -> None:
    await current_runtime().delete(Callee, "a")


async def schedule(number: int) -> None:
    await current_runtime().schedule_alarm(Callee, "a", "any", after=1000)


async def cancel(number: int) -> None:
    await current_runtime().cancel_alarm(Callee, "a", "any")


async def drop(number: int) -> None:
    await current_runtime().root.drop_tenant("acme")


WAYS: dict[str, Callable[[int], Awaitable[object]]] = {
    "a call": lambda number: Callee.hear("a", number),
    "a call that relays": lambda number: Callee.relay("a", number),
    "put_state": put,
    "delete": delete,
    "schedule_alarm": schedule,
    "cancel_alarm": cancel,
    "drop_tenant": drop,
}
ways = pytest.mark.parametrize("way", WAYS)


def commits_of_others(storage: ScriptedStorage) -> list[object]:
    return [each for batch in storage.batches for each in batch if each.key.type_name != "Caller"]


@ways
async def test_what_a_turn_does_to_others_waits_for_an_earlier_commit(way: str) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        await Callee.read("a")
        await Callee.read("relayed")
        await Caller.ask("a")
        with storage.held("writer"):
            taken = group.start(Caller.take, "a")
            await settle()
            told = group.start(Caller.tell, "a", way)
            await settle()
            assert (await runtime.get_state(Callee, "a")).heard == 0
            assert (await runtime.get_state(Callee, "relayed")).heard == 0
            assert not taken.done
            assert not told.done
        await told.wait()
        assert told.error is None


@ways
async def test_if_that_commit_fails_nothing_is_done_and_the_turn_is_lost(way: str) -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage), calls() as group:
        await Callee.hear("a", 1)
        await Callee.read("relayed")
        await Caller.ask("a")
        before = len(storage.batches)
        with storage.held("writer"):
            storage.fail_commits(StorageFault("the disk"))
            taken = group.start(Caller.take, "a")
            await settle()
            told = group.start(Caller.tell, "a", way)
            await settle()
        await taken.wait()
        await told.wait()
        assert isinstance(taken.error, PersistenceError)
        assert isinstance(told.error, PersistenceError)
        assert len(storage.batches) == before + 1  # the one that failed
        assert await Callee.read("a") == 1
        assert await Callee.read("relayed") == 0
        assert await Caller.take("a") == 2  # as stored


LISTINGS: dict[str, Callable[[Objects], Awaitable[object]]] = {
    "list_objects": lambda objects: objects.list_objects(Caller),
    "list_states": lambda objects: objects.list_states(Caller),
    "list_alarms": lambda objects: objects.list_alarms("Callee", "a"),
    "list_dead_letters": lambda objects: objects.list_dead_letters("Callee"),
    "list_messages": lambda objects: objects.list_messages(Callee),
    "list_dead_messages": lambda objects: objects.list_dead_messages(Callee),
    "count_messages": lambda objects: objects.count_messages(),
    "list_tenants": lambda objects: objects.root.list_tenants(),
    "exists": lambda objects: objects.exists("Callee", "new"),
}


@pytest.mark.parametrize("way", LISTINGS)
async def test_what_a_turn_lists_is_no_older_than_the_turns_before_it(way: str) -> None:
    storage = ScriptedStorage()
    found: list[object] = []

    class Listing(Caller, name="Listing"):
        @handler
        async def look(self) -> None:
            found.append(await LISTINGS[way](current_runtime()))
            found.append(await current_runtime().list_objects("Listing"))

    async with scripted_runtime(storage), calls() as group:
        await Listing.ask("a")
        with storage.held("writer"):
            taken = group.start(Listing.take, "a")
            await settle()
            looking = group.start(Listing.look, "a")
            await settle()
            assert not taken.done
            assert not found
        await looking.wait()
        assert found[1:] == [["a"]]


@pytest.mark.parametrize("how", ["async def", "def"])
async def test_a_task_that_a_turn_has_left_waits_for_the_commit_of_the_turn(how: str) -> None:
    storage = ScriptedStorage()
    late_ones: list[Outcome[None]] = []
    async with threaded_runtime(storage), calls() as group:
        await Callee.read("a")

        async def late(number: int) -> None:
            await settle()  # by then the turn has ended
            await Callee.hear("a", number)

        class Leaving(Caller, name="Leaving"):
            @handler
            async def leave_in_async_def(self) -> None:
                self._leave()

            @handler
            def leave_in_def(self) -> None:
                self._leave()

            def _leave(self) -> None:
                self.number += 1
                # The task has the turn's context, as any that a handler starts.
                late_ones.append(group.start(late, self.number))

        leave = Leaving.leave_in_async_def if how == "async def" else Leaving.leave_in_def
        await Leaving.ask("a")
        storage.fail_commits(StorageFault("the disk"))
        with storage.blocked_writer():
            turn = group.start(leave, "a")
            await settle()
            storage.writer_busy.wait()  # later commits are in another batch
            await settle()
            [late_one] = late_ones
            assert not turn.done
            assert not late_one.done
        await turn.wait()
        await late_one.wait()
        assert isinstance(turn.error, PersistenceError)
        assert isinstance(late_one.error, PersistenceError)
        assert await Callee.read("a") == 0


async def test_a_readonly_def_handler_is_called_at_once() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage), calls() as group:
        await Callee.hear("a", 5)
        await Caller.ask("a")
        ended: list[int] = []

        class Asking(Caller, name="Asking"):
            @handler
            async def take_and_ask(self) -> None:
                self.number += 1
                await self.ctx.commit()
                ended.append(await Callee.read("a"))

            @handler(readonly=True)
            async def only_ask(self) -> None:
                ended.append(await Callee.read("a"))

        await Asking.only_ask("a")
        ended.clear()
        with storage.held("writer"):
            group.start(Asking.take, "a")
            await settle()
            group.start(Asking.only_ask, "a")
            await settle()
            assert ended == [5]


async def test_a_timeout_at_the_gate_names_the_commit() -> None:
    storage = ScriptedStorage()
    errors: list[BaseException] = []

    class Timing(Caller, name="Timing"):
        @handler
        async def tell_in_time(self) -> None:
            callee = current_runtime().get(Callee, "a", timeout=1)
            try:
                await callee.hear(1)
            except CallTimeout as error:
                errors.append(error)

    async with scripted_runtime(storage), calls() as group:
        await Callee.read("a")
        await Timing.ask("a")
        with storage.held("writer"):
            group.start(Timing.take, "a")
            await settle()
            group.start(Timing.tell_in_time, "a")
            await settle()
            await anyio.sleep(2)
            [error] = errors
            assert "the commit of the caller, Timing('a'), isn't durable yet" in str(error)
        await settle()
        assert await Callee.read("a") == 0
