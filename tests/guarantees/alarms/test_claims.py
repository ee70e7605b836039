"""Claims of alarms: several runtimes, backlogs, slow handlers, closing."""

from __future__ import annotations

import logging
import random
from collections import Counter
from datetime import timedelta
from typing import Any

import anyio
import pytest
from cluster.away import first_look
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from .bench import (
    TICK,
    AsyncBench,
    Bench,
    SharedStorage,
    fails,
    faults,
    fired,
    names,
    opened,
    raises,
    script,
    sharing,
    sleeps,
)

pytestmark = pytest.mark.anyio


# --- claims of several runtimes -------------------------------------------------------------------


async def test_what_a_dead_runtime_had_claimed_is_taken_over_when_the_claim_has_run_out() -> None:
    shared = SharedStorage()
    side = shared.side()
    script("x", lambda self: anyio.sleep(1000 if len(fired) == 1 else 0))
    async with sharing(side, claim_ttl=45, grace_period=0) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1)
        await anyio.sleep(2)
        assert names() == ["x"]
        side.dead = True
    async with sharing(shared.side(), claim_ttl=10) as runtime:
        await anyio.sleep(1 + 45 - 2 - 0.01)
        assert len(fired) == 1
        await anyio.sleep(0.05)
        assert len(fired) == 2
        assert fired[1].alarm.attempt == 1
        assert await runtime.get(AsyncBench, "a").read() == ["x"]
        await anyio.sleep(200)
        assert len(fired) == 2


async def test_a_slow_handler_keeps_its_claim() -> None:
    shared = SharedStorage()
    script("x", sleeps(1000))
    async with (
        sharing(shared.side(), claim_ttl=30, polling_interval=5) as runtime,
        sharing(shared.side(), claim_ttl=30, polling_interval=5),
    ):
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1)
        await anyio.sleep(1500)
        assert names() == ["x"]
        assert await runtime.get(AsyncBench, "a").read() == ["x"]
        assert await runtime.list_alarms(AsyncBench, "a") == []


async def test_a_claim_that_was_lost_acknowledges_nothing() -> None:
    async def slow_at_first(self: AsyncBench) -> None:
        self.log.clear()  # so that the state's revision fences nothing
        attempt = len(fired)
        await anyio.sleep(100 if attempt == 1 else 0)
        self.ctx.schedule_alarm("effect", after=0, payload=attempt)

    shared = SharedStorage()
    side = shared.side()
    script("x", slow_at_first)
    script("effect", lambda self: self.log.clear())
    async with sharing(side, claim_ttl=30) as first:
        await first.schedule_alarm(AsyncBench, "a", "x", after=1)
        await anyio.sleep(2)
        side.renews = False
        async with sharing(shared.side()) as second:
            await anyio.sleep(60)
            assert names() == ["x", "x", "effect"]
            await anyio.sleep(300)
            assert [(each.alarm.name, each.alarm.payload) for each in fired] == [
                ("x", None),
                ("x", None),
                ("effect", 2),
            ]
            assert [each.runtime for each in fired] == [first, second, second]
            assert await second.list_alarms(AsyncBench, "a") == []
            assert first.statistics().alarms_in_flight == 0


async def test_two_runtimes_deliver_each_alarm_once() -> None:
    shared = SharedStorage()
    options: dict[str, Any] = {"polling_interval": 1, "call_timeout": None}
    async with (
        sharing(shared.side(), **options) as first,
        sharing(shared.side(), **options) as second,
    ):
        for number in range(200):
            runtime = (first, second)[number % 2]
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=10 + number % 5 * 0.001)
        await anyio.sleep(200)
        assert Counter(each.object_id for each in fired) == {f"{n}": 1 for n in range(200)}
        delivered = [runtime.statistics().alarms_delivered for runtime in (first, second)]
        assert sum(delivered) == 200
        assert [first.statistics().alarms_failed, second.statistics().alarms_failed] == [0, 0]


async def test_what_another_runtime_sets_is_found_at_the_next_look() -> None:
    shared = SharedStorage()
    async with sharing(shared.side(), polling_interval=7) as first:
        await anyio.sleep(1)
        side = shared.side()
        async with sharing(side) as second:
            await second.schedule_alarm(Bench, "a", "x", after=0.5)
            side.dead = True
        await anyio.sleep(5)
        assert fired == []
        await anyio.sleep(2)
        assert [each.runtime for each in fired] == [first]


# --- backlogs and slow handlers -------------------------------------------------------------------


async def test_a_backlog_is_begun_in_the_order_of_its_times_and_each_alarm_once() -> None:
    names_per_object = 100
    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime:
        for number in range(100):

            def set_all(self: Bench, number: int = number) -> None:
                for index in range(names_per_object):
                    after = 1 + (index * 100 + number * 37 % 100) * 0.002
                    self.ctx.schedule_alarm(f"{index}", after=after)

            await runtime.get(Bench, f"{number}").do(script("set", set_all))
    await anyio.sleep(3600)
    # Nothing is claimed until all are in memory: what is loaded first would be handled first.
    storage.fail_alarm_work(*faults(100))
    async with opened(storage, call_timeout=None) as runtime:
        for number in range(100):
            await runtime.get(Bench, f"{number}").read()
        storage.forget_faults()
        with anyio.fail_after(60):
            while len(fired) < 10_000:
                await anyio.sleep(0.1)
        await anyio.sleep(100)
        assert len(fired) == 10_000
        due = [firing.alarm.due_at for firing in fired]
        assert due == sorted(due)
        for number in range(100):
            log = await runtime.get(Bench, f"{number}").read()
            assert log == [f"{index}" for index in range(names_per_object)]


async def test_a_handler_that_sleeps_for_hours_holds_nobody_else_up() -> None:
    async with opened(call_timeout=None) as runtime:
        await runtime.schedule_alarm(AsyncBench, "slow", "slow", after=1)
        script("slow", sleeps(7200))
        for number in range(300):
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=1 + number)
        await anyio.sleep(302)
        assert len(fired) == 301
        assert all(firing.late < TICK for firing in fired)
        assert runtime.statistics().alarms_in_flight == 1
        await anyio.sleep(7200)
        assert runtime.statistics().alarms_in_flight == 0
        assert await runtime.get(AsyncBench, "slow").read() == ["slow"]
        assert names().count("slow") == 1


async def test_thousands_of_slow_handlers_hold_others_up_for_moments_only() -> None:
    async with opened(call_timeout=None, polling_interval=600, claim_ttl=600) as runtime:
        for number in range(2000):
            await runtime.schedule_alarm(AsyncBench, f"{number}", "slow", after=1)
        script("slow", sleeps(1800))
        await runtime.schedule_alarm(Bench, "behind", "x", after=1.001)
        await anyio.sleep(10)
        (behind,) = [firing for firing in fired if firing.alarm.name == "x"]
        assert behind.late < timedelta(seconds=3)
        assert len(fired) == 2001
        assert runtime.statistics().alarms_in_flight == 2000
        await runtime.schedule_alarm(Bench, "later", "x", after=5)
        await anyio.sleep(6)
        assert fired[-1].late < TICK
        await anyio.sleep(1900)
        assert len(fired) == 2002
        assert runtime.statistics().alarms_in_flight == 0


async def test_how_many_begin_at_once_is_bounded() -> None:
    running = 0
    most = 0

    async def counted(_self: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.1)
        running -= 1

    async with opened(call_timeout=None) as runtime:
        for number in range(1000):
            await runtime.schedule_alarm(AsyncBench, f"{number}", "x", after=1)
        script("x", counted)
        await anyio.sleep(5)
        assert len(fired) == 1000
        assert 16 <= most <= 256


async def test_failing_handlers_hold_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "trio_durable.alarms")  # thousands of tracebacks
    async with opened(call_timeout=None) as runtime:
        for number in range(1000):
            await runtime.schedule_alarm(Bench, f"{number}", "bad", after=1)
        script("bad", raises)
        for number in range(100):
            await runtime.schedule_alarm(Bench, f"good {number}", "x", after=1.001 + number * 0.1)
        await anyio.sleep(12)
        good = [firing for firing in fired if firing.alarm.name == "x"]
        assert len(good) == 100
        assert all(firing.late < timedelta(seconds=0.5) for firing in good)


async def test_many_alarms_of_one_slow_object_hold_no_other_object_up() -> None:
    async with opened(call_timeout=None) as runtime:
        for number in range(500):
            await runtime.schedule_alarm(AsyncBench, "slow", f"{number}", after=1)
            script(f"{number}", sleeps(10))
        await runtime.schedule_alarm(Bench, "other", "x", after=1.5)
        await anyio.sleep(5)
        (other,) = [firing for firing in fired if firing.alarm.name == "x"]
        assert other.late < timedelta(seconds=1)
        await anyio.sleep(5010)
        assert len(fired) == 501
        assert len(await runtime.get(AsyncBench, "slow").read()) == 500


# --- closing the runtime --------------------------------------------------------------------------


async def test_handlers_under_way_have_the_grace_period() -> None:
    storage = ScriptedStorage()
    script("x", sleeps(3))
    async with opened(storage, grace_period=5) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1)
        await anyio.sleep(2)
    assert storage.states() == {"a": {"log": ["x"]}}
    async with opened(storage) as runtime:
        assert await runtime.list_alarms(AsyncBench, "a") == []
        await anyio.sleep(100)
        assert len(fired) == 1


@pytest.fixture
def kept_claims(monkeypatch: pytest.MonkeyPatch) -> ScriptedStorage:
    """A storage that can't tell on opening that those who claimed something are gone."""
    storage = ScriptedStorage()
    monkeypatch.setattr(storage.memory._contents.alarms, "give_back", lambda: None)
    return storage


@pytest.mark.parametrize("grace_period", [0, 1])
async def test_handlers_beyond_the_grace_period_are_rolled_back_and_run_in_the_next_runtime(
    kept_claims: ScriptedStorage, grace_period: float
) -> None:
    script("x", lambda self: anyio.sleep(1000 if len(fired) == 1 else 0))
    async with opened(kept_claims, grace_period=grace_period) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1)
        await anyio.sleep(2)
    assert kept_claims.rows() == {}
    async with opened(kept_claims) as runtime:
        await first_look(runtime)
        assert len(fired) == 2
        assert fired[1].alarm.attempt == 1
        assert await runtime.get(AsyncBench, "a").read() == ["x"]


async def test_what_was_claimed_and_not_begun_is_given_back(kept_claims: ScriptedStorage) -> None:
    async with calls() as group:
        async with opened(kept_claims, grace_period=1) as runtime:
            await runtime.schedule_alarm(Bench, "a", "x", after=1)
            call = group.start(runtime.get(Bench, "a").do_slowly, script("sleep", sleeps(1000)))
            await anyio.sleep(2)
            assert runtime.statistics().alarms_in_flight == 1
        await call.wait()
    assert fired == []
    async with opened(kept_claims) as second:
        await first_look(second)
        assert names() == ["x"]
        assert fired[0].alarm.attempt == 1
        assert await second.get(Bench, "a").read() == ["x"]


async def test_what_is_claimed_while_the_runtime_closes_is_given_back(
    kept_claims: ScriptedStorage,
) -> None:
    leave = anyio.Event()

    async def live() -> None:
        async with opened(kept_claims) as runtime:
            await runtime.schedule_alarm(Bench, "a", "x", after=1)
            await leave.wait()

    async with calls() as group:
        life = group.start(live)
        await anyio.sleep(0.5)
        with kept_claims.held("writer"):
            await anyio.sleep(2)  # the claim is on its way
            leave.set()
            await settle()
    assert life.error is None
    assert len(kept_claims.claims) == 1
    assert fired == []
    async with opened(kept_claims) as second:
        await anyio.sleep(0.01)
        assert names() == ["x"]
        assert await second.get(Bench, "a").read() == ["x"]


async def test_a_closing_runtime_begins_no_more_deliveries() -> None:
    storage = ScriptedStorage()
    async with opened(storage, grace_period=5) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "slow", after=1)
        await runtime.schedule_alarm(Bench, "b", "x", after=3)
        script("slow", sleeps(4))
        await anyio.sleep(2)
    assert names() == ["slow"]
    async with opened(storage) as runtime:
        await first_look(runtime)
        assert names() == ["slow", "x"]


@pytest.mark.parametrize("gives_back", [True, False])
async def test_nothing_is_lost_over_many_openings(
    gives_back: bool, kept_claims: ScriptedStorage
) -> None:
    rng = random.Random(7)
    storage = ScriptedStorage() if gives_back else kept_claims
    script("slow", lambda self: anyio.sleep(rng.choice((0.1, 1, 3))))
    script("failing", fails(1))
    async with opened(storage) as runtime:
        for number in range(60):
            name = ("quick", "slow", "failing")[number % 3]
            after = rng.uniform(0, 30)
            await runtime.schedule_alarm(AsyncBench, f"{number}", name, after=after)
    for _ in range(60):
        async with opened(storage, grace_period=0.2, claim_ttl=20):
            await anyio.sleep(rng.uniform(0, 1.5))
        await anyio.sleep(rng.uniform(0, 0.5))
    async with opened(storage, claim_ttl=20):
        await anyio.sleep(100)
    expected = {f"{n}": {"log": [("quick", "slow", "failing")[n % 3]]} for n in range(60)}
    assert storage.states() == expected


# --- statistics -----------------------------------------------------------------------------------


async def test_statistics_count_alarms() -> None:
    def numbers() -> tuple[int, int, int, int]:
        found = runtime.statistics()
        return (
            found.alarms_waiting,
            found.alarms_in_flight,
            found.alarms_delivered,
            found.alarms_failed,
        )

    async with opened() as runtime:
        await anyio.sleep(0.1)
        assert numbers() == (0, 0, 0, 0)
        for name, after in (("quick", 10), ("slow", 20), ("failing", 30), ("far", 86400)):
            await runtime.schedule_alarm(AsyncBench, name, name, after=after)
        script("slow", sleeps(5))
        script("failing", fails(1))
        assert numbers() == (3, 0, 0, 0)  # that of tomorrow is in the table only
        await anyio.sleep(10.5)
        assert numbers() == (2, 0, 1, 0)
        await anyio.sleep(10)
        assert numbers() == (1, 1, 1, 0)
        await anyio.sleep(10)
        assert numbers() == (1, 0, 2, 1)  # to be tried again
        await anyio.sleep(10)
        assert numbers() == (0, 0, 3, 1)
        await runtime.schedule_alarm(AsyncBench, "quick", "quick", after=10)
        assert numbers() == (1, 0, 3, 1)
        await runtime.cancel_alarm(AsyncBench, "quick", "quick")
        assert numbers() == (0, 0, 3, 1)
