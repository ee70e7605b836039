"""Handles: equality, copies, pickles, handles as arguments and results, and what they refuse."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import anyio
import attrs
import pytest

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    ForeignHandle,
    Handle,
    NotOnHandle,
    ObjectKey,
    UnknownHandler,
    alarm,
    handler,
)
from trio_durable._api.handle import HandleSource, Origin, _unpickled

pytestmark = pytest.mark.anyio


class Counter(DurableObject):
    LIMIT = 10
    ALIASES: ClassVar[None] = None

    count: int = 0
    tags: list[str] = attrs.field(factory=list)

    @handler
    def increment(self) -> int:
        """Count one more."""
        self.count += 1
        return self.count

    @handler
    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def helper(self) -> int:
        return self.count

    @property
    def doubled(self) -> int:
        return self.count * 2

    @alarm
    def ring(self) -> None:
        self.count += 1


class Other(DurableObject):
    pass


@attrs.define
class Pair:
    first: Counter
    others: list[Counter]


class Registry(DurableObject):
    names: list[str] = attrs.field(factory=list)

    @handler
    async def count_on(self, counter: Counter, others: dict[str, list[Counter]]) -> int:
        total = await counter.increment()
        for each in others["more"]:
            total += await each.increment()
        return total

    @handler
    def find(self, object_id: str) -> Counter:
        return self.ctx.runtime.get(Counter, object_id)

    @handler
    async def echo(self, counters: list[Counter]) -> list[Counter]:
        return counters

    @handler(readonly=True)
    def swap(self, pair: Pair) -> Pair:
        return Pair(pair.others[0], [pair.first])

    @handler
    def keep(self, counter: Counter) -> None:
        kept.append(counter)


kept: list[object] = []


# --- identity ------------------------------------------------------------------------------------


async def test_handles_are_equal_if_they_lead_to_the_same_object() -> None:
    async with DurableRuntime(":memory:") as runtime, DurableRuntime(":memory:") as second:
        counter: object = runtime.get(Counter, "a")
        assert counter == runtime.get("Counter", "a", timeout=3)
        assert hash(counter) == hash(runtime.get("Counter", "a"))
        assert counter != runtime.get(Counter, "b")
        assert counter != second.get(Counter, "a")
        assert counter != runtime.get(Other, "a")
        assert counter != "a"
        assert repr(counter) == "<handle of Counter('a')>"
        assert repr(runtime) == "<DurableRuntime on :memory:>"
        assert runtime.count_objects() == 0


async def test_handles_of_different_tenants_are_different() -> None:
    async with DurableRuntime(":memory:") as runtime:
        acme, beta = runtime.tenant("acme"), runtime.tenant("beta")
        handles = {each.get(Counter, "a") for each in (runtime, acme, beta, acme)}
        assert len(handles) == 3
        assert acme.get(Counter, "a", timeout=1) in handles


async def test_handles_are_keys_whatever_their_timeouts() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counts = {runtime.get(Counter, name): name for name in "abc"}
        assert counts[runtime.get(Counter, "b", timeout=None)] == "b"
        assert len({runtime.get(Counter, "a", timeout=n) for n in (1, 2, None)}) == 1


async def test_a_copy_is_the_handle_itself() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter: object = runtime.get(Counter, "a")
        assert copy.copy(counter) is counter
        assert copy.deepcopy(counter) is counter
        [copied] = copy.deepcopy([counter])
        assert copied is counter


# --- arguments and results -----------------------------------------------------------------------


async def test_handles_are_arguments() -> None:
    async with DurableRuntime(":memory:") as runtime:
        a, b, c = (runtime.get(Counter, name) for name in "abc")
        await c.increment()
        registry = runtime.get(Registry, "r")
        assert await registry.count_on(a, {"more": [b, c, b]}) == 1 + 1 + 2 + 2
        assert await b.increment() == 3


async def test_handles_are_results() -> None:
    async with DurableRuntime(":memory:") as runtime:
        registry = runtime.get(Registry, "r")
        found = await registry.find("a")
        assert found == runtime.get(Counter, "a")
        assert await found.increment() == 1
        given = [runtime.get(Counter, "a"), runtime.get(Counter, "b", timeout=1)]
        back = await registry.echo(given)
        assert back == given
        assert back is not given


async def test_handles_are_passed_inside_of_attrs_classes() -> None:
    async with DurableRuntime(":memory:") as runtime:
        pair = Pair(runtime.get(Counter, "a"), [runtime.get(Counter, "b")])
        back = await runtime.get(Registry, "r").swap(pair)
        assert (back.first, back.others) == (pair.others[0], [pair.first])
        assert await back.first.increment() == 1


async def test_a_handle_keeps_its_timeout_and_tenant_as_an_argument() -> None:
    async with DurableRuntime(":memory:") as runtime:
        kept.clear()
        hasty = runtime.tenant("acme").get(Counter, "a", timeout=1)
        await runtime.get(Registry, "r").keep(hasty)
        [passed] = kept
        assert passed is hasty
        with pytest.raises(CallTimeout) as caught:
            await hasty.wait(10)
        assert caught.value.key == ObjectKey("Counter", "a", "acme")


# --- pickles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
async def test_a_handle_is_pickled_within_its_runtime(protocol: int) -> None:
    async with DurableRuntime(":memory:") as second, DurableRuntime(":memory:") as runtime:
        for objects in (runtime, runtime.tenant("acme")):
            for handle in (objects.get(Counter, "a"), objects.get("Counter", "a")):
                back: object = pickle.loads(pickle.dumps(handle, protocol))
                assert back == handle
                assert back != second.get(Counter, "a")
                assert type(back) is type(handle)
        assert await pickle.loads(pickle.dumps(runtime.get(Counter, "a"))).increment() == 1
        assert await runtime.get(Counter, "a").increment() == 2
        assert not await second.exists(Counter, "a")


async def test_a_pickled_handle_keeps_its_timeout() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        hasty: Counter = pickle.loads(pickle.dumps(runtime.get(Counter, "a", timeout=1)))
        with pytest.raises(CallTimeout) as caught:
            await hasty.wait(10)
        assert caught.value.timeout == 1
        patient: Counter = pickle.loads(pickle.dumps(runtime.get(Counter, "b")))
        await patient.wait(timedelta(days=1).total_seconds())


async def test_a_pickled_handle_is_refused_once_its_runtime_has_closed() -> None:
    async with DurableRuntime(":memory:") as runtime:
        pickled = pickle.dumps(runtime.tenant("acme").get(Counter, "a"))
    async with DurableRuntime(":memory:"):
        with pytest.raises(ForeignHandle) as caught:
            pickle.loads(pickled)
    assert caught.value.key == ObjectKey("Counter", "a", "acme")
    assert "runtime.get()" in str(caught.value)


IN_OTHER_PROCESSES = """
import os, pickle, subprocess, sys
import trio
from trio_durable import DurableObject, DurableRuntime, ForeignHandle, InlineRunner

class Counter(DurableObject):
    count: int = 0

def refused(pickled):
    try:
        pickle.loads(pickled)
    except ForeignHandle:
        return True
    return False

async def main():
    async with DurableRuntime(sys.argv[1], runner=InlineRunner) as runtime:
        pickled = pickle.dumps(runtime.get(Counter, "a"))
        assert not refused(pickled)
        child = os.fork()
        if child == 0:
            os._exit(not refused(pickled))
        _, status = os.waitpid(child, 0)
        assert status == 0, "a forked process has loaded it"
        load = "import pickle, sys; pickle.load(sys.stdin.buffer)"
        run = subprocess.run([sys.executable, "-c", load], input=pickled, capture_output=True)
        assert b"trio_durable.ForeignHandle" in run.stderr, run.stderr

trio.run(main)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_pickled_handle_is_refused_in_other_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", IN_OTHER_PROCESSES, str(tmp_path / "app.db")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_an_abandoned_runtime_is_forgotten() -> None:
    class Nothing:
        def handle(self, type_name: str, address: str, timeout: float | None) -> Handle:
            raise NotImplementedError

    source: HandleSource = Nothing()
    origin = Origin(source)
    token = origin.token
    origin.open()
    with pytest.raises(NotImplementedError):
        _unpickled(token, "Counter", "a", None)
    del origin
    gc.collect()
    with pytest.raises(ForeignHandle):
        _unpickled(token, "Counter", "a", None)


# --- what a handle hasn't ------------------------------------------------------------------------


async def test_handles_have_handlers_and_nothing_else() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        for name in ("count", "nothing", "ctx", "after_load"):
            with pytest.raises(UnknownHandler) as caught:
                getattr(counter, name)
            assert caught.value.handler == name
            assert isinstance(caught.value, AttributeError)
            assert "increment" in str(caught.value)
        with pytest.raises(AttributeError):
            counter.count = 3
        assert not hasattr(counter, "nothing")
        assert counter.increment.__doc__ == "Count one more."


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("count", "count is a field"),
        ("tags", "tags is a field"),
        ("ctx", "ctx is for the object's own methods"),
        ("helper", "helper is a plain method"),
        ("doubled", "doubled is an attribute of the class"),
        ("LIMIT", "LIMIT is an attribute of the class"),
        ("ALIASES", "ALIASES is an attribute of the class"),
        ("ring", "ring is an alarm"),
        ("after_load", "after_load is a hook"),
        ("handle_alarm", "handle_alarm is a hook"),
    ],
)
async def test_a_handle_says_why_it_lacks_a_member_of_the_class(name: str, problem: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.tenant("acme").get(Counter, "a")
        with pytest.raises(NotOnHandle) as caught:
            getattr(counter, name)
        assert str(caught.value) == (
            "this is a handle of Counter('a') of tenant acme, which has handlers only (it has: "
            f"increment, wait), and {problem}; add a handler for it, or read the state with "
            "runtime.get_state()"
        )
        assert caught.value.key == ObjectKey("Counter", "a", "acme")
        assert not hasattr(counter, name)


async def test_the_plain_function_of_a_handler_is_for_the_objects_own_methods() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        with pytest.raises(NotOnHandle) as caught:
            counter.increment.function()
        assert str(caught.value) == (
            "this is a handle of Counter, which has handlers only (it has: increment, wait), and "
            "increment.function is for the object's own methods; add a handler for it, or read the "
            "state with runtime.get_state()"
        )
        assert await counter.increment() == 1


def set_count(counter: Counter) -> None:
    counter.count = 3


def set_handler(counter: Counter) -> None:
    counter.increment = counter.increment


def set_new(counter: Counter) -> None:
    counter.new = 3  # type: ignore[attr-defined]


def delete_count(counter: Counter) -> None:
    del counter.count


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (set_count, "count can't be set"),
        (set_handler, "increment can't be set"),
        (set_new, "new can't be set"),
        (delete_count, "count can't be deleted"),
    ],
)
async def test_a_handle_is_immutable(change: Callable[[Counter], None], problem: str) -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        with pytest.raises(NotOnHandle, match=problem) as caught:
            change(counter)
        assert isinstance(caught.value, AttributeError)
        assert await counter.increment() == 1


async def test_a_misspelt_handler_is_unknown() -> None:
    async with DurableRuntime(":memory:") as runtime:
        counter = runtime.get(Counter, "a")
        with pytest.raises(UnknownHandler, match="no handler 'increent'") as caught:
            counter.increent  # type: ignore[attr-defined]  # noqa: B018
        assert type(caught.value) is UnknownHandler
