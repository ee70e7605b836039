"""Timeouts: the longest wait of a caller, and the fate of its call."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import pytest
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls
from support.workers import Worker

from trio_durable import (
    CallTimeout,
    DurableObject,
    DurableRuntime,
    Duration,
    MailboxFull,
    handler,
)

pytestmark = pytest.mark.anyio


class Hasty(Worker, call_timeout=timedelta(seconds=2)):
    pass


class Patient(Worker, call_timeout=None):
    pass


class Narrow(Worker, mailbox_size=2):
    pass


async def test_a_turn_that_has_begun_commits_though_its_caller_timed_out() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        worker = runtime.get(Worker, "a")
        start = anyio.current_time()
        with pytest.raises(CallTimeout) as caught:
            await worker.work(8)
        assert anyio.current_time() - start == pytest.approx(5, abs=0.1)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.timeout == 5
        assert caught.value.may_have_run
        assert caught.value.handler == "work"
        assert "work has been running for 5 s" in str(caught.value)
        assert storage.rows() == {}
        await anyio.sleep(4)
        assert storage.rows() == {"a": b'{"done":1,"$as":{}}'}


@pytest.mark.parametrize("quick", [True, False])
async def test_a_call_that_times_out_while_queued_never_runs(quick: bool) -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime, calls() as group:
        group.start(runtime.get(Worker, "a").work, 10)
        await anyio.sleep(1)
        queued = runtime.get(Worker, "a", timeout=2)
        problem = r"running for 3 s, 1 call is waiting\); it did not run"
        with pytest.raises(CallTimeout, match=problem):
            await (queued.work_quickly() if quick else queued.work(0))
        info = runtime.whereis(Worker, "a")
        assert info is not None
        assert info.mailbox_depth == 0
        await anyio.sleep(10)
        assert await runtime.get(Worker, "a").read() == 1


async def test_a_call_that_times_out_at_the_gate_stands() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        worker = runtime.get(Worker, "a")
        await worker.read()
        with (
            storage.held("writer"),
            pytest.raises(CallTimeout, match=r"its commit isn't durable yet\); a turn that has"),
        ):
            await worker.work_quickly()
        assert await worker.read() == 1


async def test_a_call_that_times_out_while_its_object_loads_never_runs() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        problem = "loading has been .* it did not run"
        with storage.held("reader"), pytest.raises(CallTimeout, match=problem):
            await runtime.get(Worker, "a").work_quickly()
        assert await runtime.get(Worker, "a").read() == 0


SECONDS: list[tuple[type[Worker], Duration | None, float | None]] = [
    (Worker, 3, 3),
    (Worker, timedelta(milliseconds=1500), 1.5),
    (Hasty, 3, 3),
    (Hasty, None, None),
    (Patient, 3, 3),
]


@pytest.mark.parametrize(("cls", "timeout", "expected"), SECONDS)
async def test_the_handles_timeout_comes_first(
    cls: type[Worker], timeout: Duration | None, expected: float | None
) -> None:
    async with DurableRuntime(":memory:", call_timeout=1) as runtime:
        await took(runtime.get(cls, "a", timeout=timeout), expected)


@pytest.mark.parametrize(("cls", "expected"), [(Worker, 1), (Hasty, 2), (Patient, None)])
async def test_the_classs_timeout_comes_next_and_the_runtimes_last(
    cls: type[Worker], expected: float | None
) -> None:
    async with DurableRuntime(":memory:", call_timeout=1) as runtime:
        await took(runtime.get(cls, "a"), expected)
        if expected is None:
            await runtime.call(cls, "b", "work", 250)
        else:
            attempts: list[Callable[[], Awaitable[object]]] = [
                lambda: runtime.call(cls, "b", "work", 1000),
                lambda: cls.work("b", 1000),
                lambda: runtime.get_state(cls, "b"),
            ]
            for attempt in attempts:
                start = anyio.current_time()
                with pytest.raises(CallTimeout):
                    await attempt()
                assert anyio.current_time() - start == pytest.approx(expected, abs=0.1)


async def test_none_is_for_ever() -> None:
    async with DurableRuntime(":memory:", call_timeout=None) as runtime:
        await took(runtime.get(Worker, "a"), None)


async def took(worker: Worker, expected: float | None) -> None:
    """Check after which time a call of ``worker`` gives up."""
    start = anyio.current_time()
    if expected is None:
        assert await worker.work(250) == 1
    else:
        with pytest.raises(CallTimeout) as caught:
            await worker.work(1000)
        assert caught.value.timeout == expected
        assert anyio.current_time() - start == pytest.approx(expected, abs=0.1)


async def test_a_timeout_of_zero_serves_nobody_but_the_quickest() -> None:
    async with DurableRuntime(":memory:") as runtime:
        worker = runtime.get(Worker, "a", timeout=0)
        with pytest.raises(CallTimeout):
            await worker.work(1)


async def test_different_timeouts_expire_in_their_own_order() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        begin = anyio.current_time()
        expired: list[tuple[float, float]] = []

        async def call(timeout: float) -> None:
            with pytest.raises(CallTimeout):
                await runtime.get(Worker, "a", timeout=timeout).work(1000)
            expired.append((timeout, anyio.current_time() - begin))

        for timeout in (3, 1, 2, 1, 5, 4, 2.5):
            group.start(call, timeout)
        await anyio.sleep(10)
        assert [timeout for timeout, _ in expired] == [1, 1, 2, 2.5, 3, 4, 5]
        assert all(at == pytest.approx(timeout, abs=0.1) for timeout, at in expired)


# --- the mailbox ---------------------------------------------------------------------------------


async def test_a_full_mailbox_makes_callers_wait_and_then_tells_them() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        patient = runtime.get(Narrow, "a", timeout=None)
        group.start(patient.work, 20)
        await settle()
        queued = [group.start(patient.work_quickly)]
        await settle()
        in_mailbox = group.start(runtime.get(Narrow, "a", timeout=7).work_quickly)
        await settle()
        outside = [group.start(runtime.get(Narrow, "a", timeout=t).work_quickly) for t in (3, 6)]
        await anyio.sleep(4)
        assert not in_mailbox.done
        full = outside[0].error
        assert isinstance(full, MailboxFull)
        assert full.mailbox_size == 2
        assert "mailbox_size" in str(full)
        assert str(pickle.loads(pickle.dumps(full))) == str(full)
        await anyio.sleep(4)
        assert isinstance(outside[1].error, MailboxFull)
        assert type(in_mailbox.error) is CallTimeout
        await queued[0].wait()
        assert queued[0].value == 2
        assert await patient.read() == 2


async def test_a_full_mailbox_is_told_to_callers_of_equal_patience() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        group.start(runtime.get(Narrow, "a", timeout=None).work, 20)
        await settle()
        outcomes = []
        for _ in range(4):
            outcomes.append(group.start(runtime.get(Narrow, "a").work_quickly))
            await anyio.sleep(0.1)
        await anyio.sleep(6)
        assert [type(outcome.error) for outcome in outcomes] == [
            CallTimeout,
            CallTimeout,
            MailboxFull,
            MailboxFull,
        ]


async def test_callers_of_a_full_mailbox_are_served_once_there_is_a_place() -> None:
    async with DurableRuntime(":memory:") as runtime, calls() as group:
        narrow = runtime.get(Narrow, "a")
        outcomes = [group.start(narrow.work, 1)]
        await settle()
        for _ in range(5):
            outcomes.append(group.start(narrow.work_quickly))
            await settle()
        await anyio.sleep(3)
        assert [outcome.value for outcome in outcomes] == [1, 2, 3, 4, 5, 6]


async def test_a_call_that_ended_in_time_is_not_kept_until_its_deadline() -> None:
    class Token(str):
        """A reply of which can be told whether it is alive."""

    class Talker(DurableObject):
        count: int = 0

        @handler
        def talk(self, token: Token) -> Token:
            self.count += 1
            return token

    async with DurableRuntime(":memory:") as runtime:
        talker = runtime.get(Talker, "a", timeout=1_000_000)
        alive: weakref.WeakSet[Token] = weakref.WeakSet()
        for _ in range(5000):
            alive.add(await talker.talk(Token("x")))
        gc.collect()
        assert len(alive) < 3000
