"""Each public coroutine can be cancelled, and lets other tasks run, on every path to success."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from support.tasks import calls

import trio_durable
from trio_durable import DurableObject, DurableRuntime, Runner, handler

pytestmark = pytest.mark.anyio


class Plain(DurableObject):
    count: int = 0

    @handler
    def add(self) -> int:
        self.count += 1
        return self.count

    @handler(readonly=True)
    def read(self) -> int:
        return self.count

    @handler
    async def commit(self) -> None:
        await self.ctx.commit()


Path = Callable[[DurableRuntime], Awaitable[object]]
PATHS: dict[str, list[Path]] = {
    "DurableRuntime.call": [
        lambda runtime: runtime.call("Plain", "a", "add"),
        lambda runtime: runtime.call("Plain", "a", "read"),
        lambda runtime: runtime.call("Plain", "new", "read"),
    ],
    "DurableRuntime.ensure_started": [
        lambda runtime: runtime.ensure_started(Plain, "a"),
        lambda runtime: runtime.ensure_started(Plain, "new"),
    ],
    "DurableRuntime.stop": [
        lambda runtime: runtime.stop(Plain, "a"),
        lambda runtime: runtime.stop(Plain, "nothing"),
    ],
    "DurableRuntime.get_state": [lambda runtime: runtime.get_state(Plain, "a")],
    "DurableRuntime.put_state": [
        lambda runtime: runtime.put_state(Plain, "a", Plain(count=1)),
        lambda runtime: runtime.put_state(Plain, "new", Plain(count=1)),
        lambda runtime: runtime.put_state(Plain, "new", Plain(count=1), expected=(0, None)),
    ],
    "DurableRuntime.exists": [
        lambda runtime: runtime.exists(Plain, "a"),
        lambda runtime: runtime.exists(Plain, "nothing"),
    ],
    "DurableRuntime.delete": [
        lambda runtime: runtime.delete(Plain, "b"),
        lambda runtime: runtime.delete(Plain, "nothing"),
    ],
    "DurableRuntime.list_objects": [lambda runtime: runtime.list_objects(Plain)],
    "DurableRuntime.list_states": [lambda runtime: runtime.list_states(Plain)],
    "DurableRuntime.schedule_alarm": [
        lambda runtime: runtime.schedule_alarm(Plain, "a", "any", after=1000)
    ],
    "DurableRuntime.cancel_alarm": [
        lambda runtime: runtime.cancel_alarm(Plain, "a", "any"),
        lambda runtime: runtime.cancel_alarm(Plain, "nothing", "any"),
    ],
    "DurableRuntime.cancel_all_alarms": [
        lambda runtime: runtime.cancel_all_alarms(Plain, "a"),
        lambda runtime: runtime.cancel_all_alarms(Plain, "nothing"),
    ],
    "DurableRuntime.list_alarms": [lambda runtime: runtime.list_alarms(Plain, "a")],
    "DurableRuntime.list_dead_letters": [lambda runtime: runtime.list_dead_letters(Plain)],
    "DurableRuntime.retry_alarm": [lambda runtime: runtime.retry_alarm(Plain, "a", "any")],
    "DurableRuntime.send": [
        lambda runtime: runtime.send(Plain.add, "a"),
        lambda runtime: runtime.send(Plain.add, "new"),
    ],
    "OutsideMessage.send": [
        lambda runtime: runtime.outgoing(after=1000).send(Plain.add, "a"),
        lambda runtime: runtime.outgoing(once="k").send(Plain.add, "a"),
    ],
    "DurableRuntime.settled": [
        lambda runtime: runtime.settled(Plain, "a"),
        lambda runtime: runtime.settled(Plain, "nothing"),
    ],
    "DurableRuntime.count_messages": [lambda runtime: runtime.count_messages()],
    "DurableRuntime.list_messages": [lambda runtime: runtime.list_messages(Plain)],
    "DurableRuntime.list_dead_messages": [lambda runtime: runtime.list_dead_messages(Plain)],
    "DurableRuntime.retry_message": [
        lambda runtime: runtime.retry_message("0123456789abcdef"),
        lambda runtime: runtime.retry_message("nonsense"),
    ],
    "DurableRuntime.retry_messages": [lambda runtime: runtime.retry_messages(Plain)],
    "DurableRuntime.drop_message": [
        lambda runtime: runtime.drop_message("0123456789abcdef"),
        lambda runtime: runtime.drop_message("nonsense"),
    ],
    "DurableRuntime.list_nodes": [lambda runtime: runtime.list_nodes()],
    "DurableRuntime.locate": [lambda runtime: runtime.locate(Plain, "a")],
    "DurableRuntime.list_tenants": [lambda runtime: runtime.list_tenants()],
    "DurableRuntime.drop_tenant": [lambda runtime: runtime.drop_tenant("nobody")],
    "handlers": [
        lambda runtime: runtime.get(Plain, "a").add(),
        lambda runtime: runtime.get(Plain, "a", once="k").add(),
        lambda runtime: runtime.get(Plain, "a").read(),
        lambda runtime: runtime.get(Plain, "a").commit(),
        lambda runtime: runtime.get(Plain, "new").read(),
        lambda runtime: Plain.read("a"),
    ],
}
ELSEWHERE = {
    "DurableRuntime.closed": "returns when the runtime is closed: see test_hosts",
    "Context.commit": "within a turn: it is one of the handlers here",
    "Context.list_alarms": "within a turn, by the scheduler's list_alarms",
    "Withdrawal.taken_back": "within a turn: it reads as find_sent does, see test_messages",
}


def public_coroutines() -> Iterator[str]:
    """The coroutine functions of the public classes, by name."""
    for name in trio_durable.__all__:
        found = getattr(trio_durable, name)
        if not inspect.isclass(found) or issubclass(found, Runner):  # for storages
            continue
        for method, function in inspect.getmembers(found):
            is_own = not method.startswith("_") and inspect.iscoroutinefunction(function)
            # A tenant has the same methods as a runtime.
            if is_own and name not in ("Objects", "Tenant"):
                yield f"{name}.{method}"


def test_each_public_coroutine_is_tried_here() -> None:
    found = set(public_coroutines())
    assert "DurableRuntime.stop" in found
    assert found == (PATHS.keys() - {"handlers"}) | ELSEWHERE.keys()


paths = pytest.mark.parametrize(
    "path", [pytest.param(path, id=name) for name, each in PATHS.items() for path in each]
)


async def prepare() -> None:
    await Plain.add("a")
    await Plain.add("b")


@paths
async def test_it_is_a_point_of_cancellation(path: Path) -> None:
    async with DurableRuntime(":memory:", objects=[Plain]) as runtime:
        await prepare()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await path(runtime)
        assert scope.cancelled_caught


@paths
async def test_it_lets_other_tasks_run(path: Path) -> None:
    async with DurableRuntime(":memory:", objects=[Plain]) as runtime, calls() as group:
        await prepare()
        if trio.lowlevel.in_trio_task():  # which runs the tasks of a round in any order
            with trio.testing.assert_checkpoints():
                await path(runtime)
            return
        ran: list[Any] = []

        async def other() -> None:
            ran.append(1)

        group.start(other)
        assert not ran
        await path(runtime)
        assert ran
