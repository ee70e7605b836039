"""Circular waits: the call that would close the circle raises CallCycle, and no other call does."""

from __future__ import annotations

import anyio
import pytest
from support.tasks import Calls, Outcome, calls

from trio_durable import (
    ActivationFailed,
    CallCycle,
    CallTimeout,
    DurableObject,
    DurableRuntime,
    handler,
)

pytestmark = pytest.mark.anyio


class Node(DurableObject, call_timeout=60):
    """Calls along a path of object ids."""

    visits: int = 0

    @handler
    async def follow(self, path: list[str], pause: float = 0) -> int:
        self.visits += 1
        await anyio.sleep(pause)
        if not path:
            return 1
        return 1 + await self.ctx.runtime.get(Node, path[0]).follow(path[1:], pause)

    @handler
    def visit(self) -> int:
        self.visits += 1
        return self.visits

    @handler
    async def visit_other(self, other: str) -> int:
        return await self.ctx.runtime.get(Node, other).visit()

    @handler
    async def visit_twice_at_once(self, other: str) -> int:
        async with calls() as group:
            node = self.ctx.runtime.get(Node, other)
            outcomes = [group.start(node.follow, [], 1) for _ in range(2)]
        return sum(outcome.value for outcome in outcomes)

    @handler
    async def survive_cycle(self, path: list[str]) -> str:
        try:
            await self.ctx.runtime.get(Node, path[0]).follow(path[1:])
        except CallCycle:
            self.visits += 100
            return "survived"
        return "no cycle"

    @handler
    async def ask_own_state(self) -> None:
        await self.ctx.runtime.get_state(Node, self.ctx.object_id)

    @handler
    async def stop_itself(self) -> None:
        await self.ctx.runtime.stop(Node, self.ctx.object_id)

    @handler
    async def leave_a_call_behind(self, other: str) -> None:
        with anyio.move_on_after(1):
            await self.ctx.runtime.get(Node, other).follow([], 5)
        await anyio.sleep(9)


class Sleeper(DurableObject, call_timeout=60):
    """Calls while it is activated."""

    async def after_load(self) -> None:
        await self.ctx.runtime.get(Caller, "caller").poke()

    @handler
    def ping(self) -> str:
        return "pong"


class Caller(DurableObject, call_timeout=60):
    @handler
    async def wake(self) -> str:
        return await self.ctx.runtime.get(Sleeper, "sleeper").ping()

    @handler
    def poke(self) -> None:
        pass


@pytest.mark.parametrize(
    "path", ["aa", "aba", "abca", "abcb", "abcdefgha"], ids=lambda path: "→".join(path)
)
async def test_a_circle_is_told_at_once(path: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        start = anyio.current_time()
        with pytest.raises(CallCycle) as caught:
            await runtime.get(Node, path[0]).follow(list(path[1:]))
        assert anyio.current_time() - start < 0.1
        told = "".join(key.object_id for key in caught.value.path)
        assert told[0] == told[-1]
        assert set(told) <= set(path)
        assert caught.value.key.object_id == path[-1]
        for name in set(path):
            assert await runtime.get(Node, name).visit() == 1  # all of it was rolled back


async def test_the_path_names_the_circle_in_order() -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(CallCycle) as caught:
            await runtime.get(Node, "a").follow(["b", "c", "a"])
        assert [key.object_id for key in caught.value.path] == ["c", "a", "b", "c"]
        assert "Node('c') → Node('a') → Node('b') → Node('c')" in str(caught.value)


@pytest.mark.parametrize("ring", ["ab", "abc", "abcdef"])
async def test_independent_chains_that_close_a_circle_are_told(ring: str) -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        start = anyio.current_time()
        outcomes = [
            group.start(runtime.get(Node, node).follow, [ring[(place + 1) % len(ring)]], 1)
            for place, node in enumerate(ring)
        ]
        await anyio.sleep(20)
        assert sum(isinstance(outcome.error, CallCycle) for outcome in outcomes) >= 1
        assert not any(isinstance(outcome.error, CallTimeout) for outcome in outcomes)
        assert anyio.current_time() - start < 21
        for node in ring:
            await runtime.get(Node, node).visit()


async def test_a_circle_through_after_load_is_told() -> None:
    async with DurableRuntime(":memory:") as runtime:
        start = anyio.current_time()
        with pytest.raises(ActivationFailed) as caught:
            await runtime.get(Caller, "caller").wake()
        assert isinstance(caught.value.__cause__, CallCycle)
        assert anyio.current_time() - start < 0.1
        # From outside there is no circle.
        assert await runtime.get(Sleeper, "sleeper").ping() == "pong"


@pytest.mark.parametrize("operation", ["ask_own_state", "stop_itself"])
async def test_an_operation_on_oneself_is_a_circle(operation: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        with pytest.raises(CallCycle):
            await runtime.call(Node, "a", operation)
        assert await runtime.get(Node, "a").visit() == 1


async def test_a_circle_may_be_survived() -> None:
    async with DurableRuntime(":memory:") as runtime:
        assert await runtime.get(Node, "a").survive_cycle(["b", "a"]) == "survived"
        assert (await runtime.get_state(Node, "a")).visits == 100


async def test_two_calls_of_one_turn_to_one_object_are_no_circle() -> None:
    async with DurableRuntime(":memory:") as runtime:
        assert await runtime.get(Node, "a").visit_twice_at_once("b") == 2
        assert (await runtime.get_state(Node, "b")).visits == 2


async def test_a_diamond_is_no_circle() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        outcomes = [
            group.start(runtime.get(Node, "a").follow, ["b", "d"], 1),
            group.start(runtime.get(Node, "c").follow, ["d"], 1),
        ]
        await anyio.sleep(10)
        assert [outcome.value for outcome in outcomes] == [3, 2]


async def test_a_turn_that_has_ended_leaves_no_trace() -> None:
    results: list[int] = []

    class Starter(DurableObject):
        count: int = 0

        @handler
        def increment(self) -> int:
            self.count += 1
            return self.count

        @handler
        async def start(self) -> None:
            handle = self.ctx.runtime.get(Starter, self.ctx.object_id)

            async def later() -> None:
                await anyio.sleep(1)
                results.append(await handle.increment())

            tasks.start_soon(later)

    async with DurableRuntime(":memory:") as runtime, anyio.create_task_group() as tasks:
        await runtime.get(Starter, "a").start()
        await anyio.sleep(2)
        assert results == [1]


async def test_a_call_that_was_given_up_does_not_count_as_a_wait() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        first = group.start(runtime.get(Node, "a").leave_a_call_behind, "b")
        await anyio.sleep(2)
        # a has given up on b and works on; b, still busy with that call, asks a next.
        second = group.start(runtime.get(Node, "b").visit_other, "a")
        await anyio.sleep(6)
        assert not second.done
        await anyio.sleep(10)
        assert first.value is None
        assert second.value == 1


# --- only the turn's own waits count -------------------------------------------------------------


class Starter(DurableObject, call_timeout=5):
    """Starts tasks that call, and awaits them or doesn't."""

    count: int = 0

    @handler
    def note(self) -> int:
        self.count += 1
        return self.count

    @handler
    async def call_back(self) -> int:
        return await self.ctx.runtime.get(Starter, "a").note()

    @handler
    async def start_in(self, tasks: str) -> None:
        group, outcomes = groups[tasks]
        outcomes.append(group.start(Starter.note, "a"))
        outcomes.append(group.start(Starter.call_back, "b"))
        await anyio.sleep(1)

    @handler
    async def wait_for_children(self, depth: int) -> None:
        async with anyio.create_task_group() as children:
            if depth > 1:
                children.start_soon(_in_children, depth - 1)
            else:
                children.start_soon(Starter.call_back, "b")


async def _in_children(depth: int) -> None:
    async with anyio.create_task_group() as children:
        if depth > 1:
            children.start_soon(_in_children, depth - 1)
        else:
            children.start_soon(Starter.call_back, "b")


groups: dict[str, tuple[Calls, list[Outcome[int]]]] = {}


async def test_calls_of_a_task_that_the_turn_does_not_await_are_served_after_it() -> None:
    async with DurableRuntime(":memory:"), calls() as group:
        outcomes: list[Outcome[int]] = []
        groups["app"] = group, outcomes
        await Starter.start_in("a", "app")
        await anyio.sleep(1)
        assert [outcome.value for outcome in outcomes] == [1, 2]


async def test_a_task_that_the_turn_does_not_await_may_change_its_alarms() -> None:
    results: list[str] = []

    class Setter(DurableObject):
        @handler
        async def start(self) -> None:
            runtime, key = self.ctx.runtime, self.ctx.object_id

            async def set_later() -> None:
                await runtime.schedule_alarm(Setter, key, "ring", after=3600)
                results.append("set")

            tasks.start_soon(set_later)
            await anyio.sleep(1)

    async with DurableRuntime(":memory:") as runtime, anyio.create_task_group() as tasks:
        await runtime.get(Setter, "a").start()
        assert results == ["set"]


async def test_a_child_that_the_turn_awaits_closes_a_circle() -> None:
    async with DurableRuntime(":memory:"):
        start = anyio.current_time()
        with pytest.raises(ExceptionGroup) as caught:
            await Starter.wait_for_children("a", 1)
        assert caught.group_contains(CallCycle)
        assert anyio.current_time() - start < 0.1


async def test_a_grandchild_closes_a_circle_on_trio_and_times_out_on_asyncio(
    anyio_backend_name: str,
) -> None:
    error = CallCycle if anyio_backend_name == "trio" else CallTimeout
    async with DurableRuntime(":memory:"):
        with pytest.raises((ExceptionGroup, CallTimeout)) as caught:
            await Starter.wait_for_children("a", 3)
        if anyio_backend_name == "trio":
            assert caught.group_contains(error)
        else:
            assert isinstance(caught.value, error)
