"""Random histories against a plain dict: replies and stored state always agree.

Each history runs in one event loop in virtual time, so that it is the same whenever it is
repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clock import VirtualTimeLoop, settle
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls
from trio.testing import MockClock

from trio_durable import (
    DurableObject,
    DurableRuntime,
    ObjectNotRunning,
    PersistenceError,
    ReadonlyViolation,
    StaleObject,
    handler,
)
from trio_durable.storage import StorageFault


class Basket(DurableObject, hibernate_after=10, shutdown_after=30):
    """Few fields, one of them nested."""

    items: list[str] = attrs.field(factory=list)
    notes: dict[str, list[int]] = attrs.field(factory=dict)

    @handler
    def add(self, item: str) -> list[str]:
        self.items.append(item)
        return self.items

    @handler
    async def add_slowly(self, item: str) -> list[str]:
        await anyio.sleep(0.5)
        self.items.append(item)
        self.notes.setdefault(item, []).append(len(self.items))
        await anyio.sleep(0.5)
        return self.items

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.items

    @handler(readonly=True)
    def cheat(self) -> None:
        self.items.append("cheat")

    @handler
    def fail(self, item: str) -> None:
        self.items.append(item)
        self.notes.clear()
        raise KeyError(item)

    @handler
    async def fail_slowly(self, item: str) -> None:
        self.items.append(item)
        await anyio.sleep(0.5)
        raise KeyError(item)

    @handler
    async def commit_and_fail(self, item: str) -> None:
        self.items.append(item)
        await self.ctx.commit()
        self.items.append("lost")
        raise KeyError(item)

    @handler
    def clear(self) -> None:
        self.ctx.delete()


IDS = st.sampled_from("abc")
ITEMS = st.sampled_from(["x", "ä", ""])
STEPS = ["add", "add_slowly", "read", "fail", "fail_slowly", "stop", "clear", "delete"]

OPERATIONS = st.one_of(
    st.tuples(st.just("call"), IDS, st.sampled_from(["add", "add_slowly"]), ITEMS),
    st.tuples(st.just("fail"), IDS, st.sampled_from(["fail", "fail_slowly"]), ITEMS),
    st.tuples(st.just("commit_and_fail"), IDS, ITEMS),
    st.tuples(st.just("read"), IDS),
    st.tuples(st.just("cheat"), IDS),
    st.tuples(st.just("put_state"), IDS, st.lists(ITEMS, max_size=3)),
    st.tuples(st.just("delete"), IDS, st.sampled_from(["clear", "delete"])),
    st.tuples(st.just("stop"), IDS),
    st.tuples(st.just("exists"), IDS),
    st.tuples(st.just("get_state"), IDS),
    st.tuples(st.just("overtake"), IDS),
    st.tuples(
        st.just("burst"),
        IDS,
        st.lists(st.sampled_from(STEPS), min_size=2, max_size=8),
        st.booleans(),
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, 11, 40])),
    st.tuples(st.just("reopen"), st.booleans()),
)


class History:
    """The runtime and its model, and what can happen to both."""

    def __init__(self) -> None:
        self.storage = ScriptedStorage()
        self.model: dict[str, tuple[list[str], dict[str, list[int]]]] = {}
        self.runtime: DurableRuntime

    async def run(self, operations: list[tuple[Any, ...]]) -> None:
        while operations:
            # Until the next time that it is opened anew.
            with anyio.CancelScope() as scope:
                async with self.opened() as self.runtime:
                    while operations:
                        name, *args = operations.pop(0)
                        if name == "reopen":
                            if args[0]:
                                scope.cancel()
                                await anyio.sleep_forever()
                            break
                        await getattr(self, name)(*args)
                        self.check()
            self.check()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[DurableRuntime]:
        async with DurableRuntime(
            self.storage, runner=self.storage.runner, max_resident=2, call_timeout=None
        ) as runtime:
            yield runtime

    def check(self) -> None:
        stored = {
            object_id: (state["items"], state["notes"])
            for object_id, state in self.storage.states().items()
        }
        assert stored == self.model

    def items(self, object_id: str) -> list[str]:
        return list(self.model.get(object_id, ([], {}))[0])

    def added(self, object_id: str, item: str, name: str) -> list[str]:
        """Add to the model."""
        items, notes = self.model.setdefault(object_id, ([], {}))
        items.append(item)
        if name == "add_slowly":
            notes.setdefault(item, []).append(len(items))
        return list(items)

    # --- one call --------------------------------------------------------------------------------

    async def call(self, object_id: str, name: str, item: str) -> None:
        reply = await self.runtime.call(Basket, object_id, name, item)
        assert reply == self.added(object_id, item, name)
        assert isinstance(reply, list)
        reply.append("mine")  # shares nothing with the object

    async def read(self, object_id: str) -> None:
        assert await self.runtime.get(Basket, object_id).read() == self.items(object_id)

    async def cheat(self, object_id: str) -> None:
        with pytest.raises(ReadonlyViolation):
            await self.runtime.get(Basket, object_id).cheat()

    async def fail(self, object_id: str, name: str, item: str) -> None:
        with pytest.raises(KeyError):
            await self.runtime.call(Basket, object_id, name, item)

    async def commit_and_fail(self, object_id: str, item: str) -> None:
        with pytest.raises(KeyError):
            await self.runtime.get(Basket, object_id).commit_and_fail(item)
        self.added(object_id, item, "add")

    async def delete(self, object_id: str, how: str) -> None:
        if how == "clear":
            await self.runtime.get(Basket, object_id).clear()
        else:
            await self.runtime.delete(Basket, object_id)
        self.model.pop(object_id, None)

    async def put_state(self, object_id: str, items: list[str]) -> None:
        given = Basket(items=list(items))
        await self.runtime.put_state(Basket, object_id, given)
        given.items.append("mine")
        self.model[object_id] = (list(items), {})

    async def stop(self, object_id: str) -> None:
        await self.runtime.stop(Basket, object_id)
        assert self.runtime.whereis(Basket, object_id) is None

    async def exists(self, object_id: str) -> None:
        assert await self.runtime.exists(Basket, object_id) == (object_id in self.model)

    async def get_state(self, object_id: str) -> None:
        running = self.runtime.whereis(Basket, object_id) is not None
        try:
            state = await self.runtime.get_state(Basket, object_id)
        except ObjectNotRunning:
            assert not running
        else:
            assert (state.items, state.notes) == self.model.get(object_id, ([], {}))

    # --- what else can happen --------------------------------------------------------------------

    async def burst(self, object_id: str, steps: list[str], fails: bool) -> None:
        """Calls one behind the other while the writer is held, which then writes, or fails."""
        before = self.storage.states()
        expected: list[object] = []
        changed = False
        for step in steps:
            reply: object = None
            if step.startswith("add"):
                changed = True
                reply = self.added(object_id, "b", step)
            elif step.startswith("fail"):
                reply = KeyError
            elif step in ("clear", "delete"):
                changed = True  # there may be alarms, whatever else there is
                self.model.pop(object_id, None)
            elif step == "read":
                reply = self.items(object_id)
            expected.append(PersistenceError if fails and changed else reply)
        if fails:
            self.model = {key: (row["items"], row["notes"]) for key, row in before.items()}
        told = [
            type(outcome.error) if outcome.error is not None else outcome.value
            for outcome in await self.together(object_id, steps, fails)
        ]
        assert told == expected

    async def together(
        self, object_id: str, steps: list[str], fails: bool
    ) -> list[Outcome[object]]:
        outcomes: list[Outcome[object]] = []
        async with calls() as group:
            with self.storage.held("writer"):
                if fails:
                    self.storage.fail_commits(StorageFault("as told"))
                for step in steps:
                    if step in ("stop", "delete"):
                        operation: Callable[..., Any] = getattr(self.runtime, step)
                        outcomes.append(group.start(operation, Basket, object_id))
                    else:
                        args = ("b",) if step.startswith(("add", "fail")) else ()
                        outcomes.append(
                            group.start(self.runtime.call, Basket, object_id, step, *args)
                        )
                    await settle()
                # All turns end before the first of them is written.
                await anyio.sleep(9)
                assert self.runtime.statistics().busy == 0
        self.storage.forget_faults()
        return outcomes

    async def overtake(self, object_id: str) -> None:
        """Somebody else writes the row; what is in memory finds out when it writes."""
        info = self.runtime.whereis(Basket, object_id)
        loaded = info is not None and info.status != "loading"
        self.storage.overwrite("Basket", object_id, b'{"items":["new"],"notes":{}}')
        self.model[object_id] = (["new"], {})
        if loaded:
            with pytest.raises(StaleObject):
                await self.runtime.get(Basket, object_id).add("stale")

    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_histories(backend: str) -> None:
    @given(st.lists(OPERATIONS, min_size=5, max_size=40))
    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    def check(operations: list[tuple[Any, ...]]) -> None:
        options: dict[str, Any] = (
            {"clock": MockClock(autojump_threshold=0)}
            if backend == "trio"
            else {"loop_factory": VirtualTimeLoop}
        )
        anyio.run(History().run, list(operations), backend=backend, backend_options=options)

    check()
