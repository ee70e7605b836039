"""Alarms whose handler fails, and deliveries under a storage that fails."""

from __future__ import annotations

import logging
import math
import random

import anyio
import attrs
import pytest
from support.scripted import ScriptedStorage

from trio_durable import Alarm, CallTimeout, ObjectKey, PersistenceError

from .bench import (
    AsyncBench,
    Bench,
    Shaky,
    both,
    errors,
    fails,
    faults,
    fired,
    names,
    opened,
    raises,
    script,
    scripts,
    sleeps,
    times,
)

pytestmark = pytest.mark.anyio


# --- a handler that fails -------------------------------------------------------------------------


@both
async def test_a_failing_handler_is_rolled_back_and_tried_again(
    cls: type[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    def fail_twice(self: Bench) -> None:
        self.ctx.schedule_alarm("other", after=0)
        if len(fired) < 3:
            raise KeyError(f"on purpose {len(fired)}")

    async with opened() as runtime:
        bench = runtime.get(cls, "a")
        await bench.note("before")
        await runtime.schedule_alarm(cls, "a", "x", after=1, payload=[1])
        due_at = (await runtime.list_alarms(cls, "a"))[0].due_at
        script("x", fail_twice)
        await anyio.sleep(1.1)
        assert await bench.read() == ["before"]
        (waiting,) = await runtime.list_alarms(cls, "a")
        assert waiting == Alarm(
            ObjectKey(cls.__name__, "a"), "x", due_at, [1], 2, "KeyError: 'on purpose 1'"
        )
        await anyio.sleep(20)
        assert names() == ["x", "x", "x", "other"]
        assert await bench.read() == ["before", "x", "other"]
        alarms = [firing.alarm for firing in fired[:3]]
        assert [alarm.attempt for alarm in alarms] == [1, 2, 3]
        assert [alarm.last_error for alarm in alarms] == [
            None,
            "KeyError: 'on purpose 1'",
            "KeyError: 'on purpose 2'",
        ]
        assert {alarm.due_at for alarm in alarms} == {due_at}
        assert [alarm.payload for alarm in alarms] == [[1]] * 3
    first, second = errors(caplog)
    assert f"x of {cls.__name__}('a') failed in attempt 1; it is tried again in" in first
    assert "attempt 2" in second
    assert [record.exc_info is not None for record in caplog.records] == [True, True]


@both
async def test_an_alarm_that_succeeds_after_all_begins_anew(cls: type[Bench]) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        script("x", fails(1))
        await anyio.sleep(20)
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        await anyio.sleep(2)
        assert [firing.alarm.attempt for firing in fired] == [1, 2, 1]
        assert fired[2].alarm.last_error is None


@pytest.mark.parametrize(
    ("name", "delays"),
    [("x", [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]), ("patient", [10, 30, 60, 60])],
)
async def test_delays_grow_and_are_jittered_by_up_to_a_half(
    name: str, delays: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "trio_durable.alarms")  # hundreds of tracebacks
    async with opened(call_timeout=None) as runtime:
        for number in range(40):
            await runtime.schedule_alarm(Bench, f"{number}", name, after=1)
        script(name, fails(len(delays)))
        await anyio.sleep(sum(delays) + 10)
        shares = []
        for number in range(40):
            at = [firing.at for firing in fired if firing.object_id == f"{number}"]
            assert len(at) == len(delays) + 1
            for delay, before, after in zip(delays, at, at[1:], strict=False):
                assert delay / 2 <= after - before < delay + 0.01
                shares.append((after - before) / delay)
        # Spread over the whole of the upper half.
        assert min(shares) < 0.55
        assert max(shares) > 0.95


@both
async def test_an_alarm_becomes_a_dead_letter_when_its_attempts_are_used_up(
    cls: type[Bench], caplog: pytest.LogCaptureFixture
) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(cls, "a", "thrice", after=1, payload="p")
        script("thrice", raises)
        (alarm,) = await runtime.list_alarms(cls, "a")
        await anyio.sleep(600)
        assert names() == ["thrice"] * 3
        assert await runtime.list_alarms(cls, "a") == []
        dead = attrs.evolve(alarm, attempt=3, last_error="KeyError: 'on purpose'")
        assert await runtime.list_dead_letters(cls) == [dead]
        assert "attempt 3, the last; it is kept as a dead letter" in errors(caplog)[-1]
        assert caplog.records[-1].exc_info is not None
    async with opened(storage) as runtime:
        await anyio.sleep(600)
        assert len(fired) == 3
        assert await runtime.list_dead_letters(cls) == [dead]


async def test_without_attempts_an_alarm_is_tried_for_ever() -> None:
    async with opened(claim_ttl=3600, polling_interval=3600) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=1)
        script("x", raises)
        await anyio.sleep(86400)
        assert len(fired) > 86400 / 300
        assert fired[-1].alarm.attempt == len(fired)
        assert await runtime.list_dead_letters(Bench) == []


@both
async def test_a_dead_letter_is_retried_with_all_its_attempts(cls: type[Bench]) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(cls, "a", "thrice", after=1, payload="p")
        assert await runtime.retry_alarm(cls, "a", "thrice") is False  # it isn't dead
        script("thrice", fails(5))
        await anyio.sleep(600)
        (dead,) = await runtime.list_dead_letters(cls)
        assert await runtime.retry_alarm(cls, "a", "thrice") is True
        await anyio.sleep(0.01)
        assert len(fired) == 4  # at once
        await anyio.sleep(600)
        assert [firing.alarm.attempt for firing in fired] == [1, 2, 3, 1, 2, 3]
        assert {firing.alarm.payload for firing in fired} == {"p"}
        assert {firing.alarm.due_at for firing in fired} == {dead.due_at}
        assert await runtime.list_dead_letters(cls) == []
        assert await runtime.get(cls, "a").read() == ["thrice"]
        assert await runtime.retry_alarm(cls, "a", "thrice") is False
        assert await runtime.retry_alarm(cls, "nobody", "thrice") is False


@pytest.mark.parametrize("how", ["cancel", "cancel all", "handler", "delete"])
async def test_a_dead_letter_can_be_cancelled(how: str) -> None:
    async with opened() as runtime:
        bench = runtime.get(Bench, "a")
        await runtime.schedule_alarm(Bench, "a", "once", after=1)
        script("once", raises)
        await anyio.sleep(2)
        assert len(await runtime.list_dead_letters(Bench)) == 1
        if how == "cancel":
            await runtime.cancel_alarm(Bench, "a", "once")
        elif how == "cancel all":
            await runtime.cancel_all_alarms(Bench, "a")
        elif how == "handler":
            await bench.do(script("cancel", lambda self: self.ctx.cancel_alarm("once")))
        else:
            await runtime.delete(Bench, "a")
        assert await runtime.list_dead_letters(Bench) == []
        assert await runtime.retry_alarm(Bench, "a", "once") is False


@pytest.mark.parametrize("inside", [False, True])
async def test_an_alarm_set_over_a_dead_letter_has_no_trace_of_it(inside: bool) -> None:
    async with opened() as runtime:
        await runtime.schedule_alarm(Bench, "a", "once", after=1)
        script("once", fails(1))
        await anyio.sleep(2)
        if inside:
            script("set", lambda self: self.ctx.schedule_alarm("once", after=10, payload="new"))
            await runtime.get(Bench, "a").do("set")
        else:
            await runtime.schedule_alarm(Bench, "a", "once", after=10, payload="new")
        assert await runtime.list_dead_letters(Bench) == []
        await anyio.sleep(11)
        assert times() == [1, 12]
        last = fired[1].alarm
        assert (last.attempt, last.last_error, last.payload) == (1, None, "new")


async def test_dead_letters_are_listed_page_by_page() -> None:
    async with opened() as runtime:
        script("once", raises)
        for object_id in ("b", "a", "é", "c"):
            await runtime.schedule_alarm(Bench, object_id, "once", after=1)
        await runtime.schedule_alarm(Bench, "a", "thrice", after=1)
        await runtime.schedule_alarm(AsyncBench, "a", "once", after=1)
        script("thrice", raises)
        await runtime.schedule_alarm(Bench, "a", "fine", after=1)
        await anyio.sleep(60)
        pages = []
        after: Alarm | None = None
        while page := await runtime.list_dead_letters(Bench, after=after, limit=2):
            assert len(page) <= 2
            pages += [(alarm.key.object_id, alarm.name) for alarm in page]
            after = page[-1]
        assert pages == [
            ("a", "once"),
            ("a", "thrice"),
            ("b", "once"),
            ("c", "once"),
            ("é", "once"),
        ]
        assert [alarm.key for alarm in await runtime.list_dead_letters("AsyncBench")] == [
            ObjectKey("AsyncBench", "a")
        ]


async def test_what_the_handler_raises_may_be_of_any_kind_and_length() -> None:
    text = "x\0\ud800" + "y" * 5000
    async with opened() as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=1)
        script("x", fails(1, lambda: ExceptionGroup(text, [ValueError(text)])))
        await anyio.sleep(1.1)
        (waiting,) = await runtime.list_alarms(Bench, "a")
        assert waiting.last_error is not None
        assert waiting.last_error.startswith("ExceptionGroup: x")
        assert len(waiting.last_error) <= 1000
        assert "\0" not in waiting.last_error
        waiting.last_error.encode()
        await anyio.sleep(20)
        assert len(fired) == 2


# --- what else counts as a failure, and what doesn't ----------------------------------------------


async def test_a_state_that_can_not_be_read_counts() -> None:
    storage = ScriptedStorage()
    storage.overwrite("Bench", "a", b'{"log":"spoilt"}')
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Bench, "a", "once", after=1)
        await runtime.schedule_alarm(Bench, "a", "x", after=1)
        await anyio.sleep(2)
        assert fired == []
        (dead,) = await runtime.list_dead_letters(Bench)
        assert dead.last_error is not None
        assert dead.last_error.startswith("StateDecodeError: stored state of Bench('a')")
        storage.overwrite("Bench", "a", b'{"log":[]}')
        await anyio.sleep(20)
        assert names() == ["x"]
        assert fired[0].alarm.attempt > 1


async def test_an_activation_that_fails_counts() -> None:
    async with opened() as runtime:
        script("after_load", raises)
        await runtime.schedule_alarm(Shaky, "a", "x", after=1)
        await anyio.sleep(2)
        (waiting,) = await runtime.list_alarms(Shaky, "a")
        assert waiting.attempt == 2
        assert waiting.last_error is not None
        assert waiting.last_error.startswith("ActivationFailed: after_load on Shaky('a')")
        scripts.clear()
        await anyio.sleep(20)
        assert names() == ["x"]
        assert await runtime.get(Shaky, "a").read() == 1


async def test_a_state_that_can_not_be_stored_counts() -> None:
    def spoil(self: Shaky) -> None:
        if len(fired) == 1:
            self.count = math.nan

    async with opened() as runtime:
        script("x", spoil)
        await runtime.schedule_alarm(Shaky, "a", "x", after=1)
        await anyio.sleep(20)
        assert [firing.alarm.attempt for firing in fired] == [1, 2]
        assert "StateEncodeError: state of Shaky('a')" in (fired[1].alarm.last_error or "")
        assert await runtime.get(Shaky, "a").read() == 1


@both
@pytest.mark.parametrize("result", [object(), 7, ["x"], anyio])
async def test_a_result_is_nobodys_business(cls: type[Bench], result: object) -> None:
    async with opened() as runtime:
        script("x", lambda self: result)
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        await anyio.sleep(20)
        assert names() == ["x"]
        assert runtime.statistics().alarms_failed == 0
        assert await runtime.get(cls, "a").read() == ["x"]


async def test_a_coroutine_that_nobody_awaits_counts() -> None:
    forgotten = sleeps(1)(None)
    async with opened() as runtime:
        script("x", lambda self: forgotten if len(fired) == 1 else None)
        await runtime.schedule_alarm(Bench, "a", "x", after=1)
        await anyio.sleep(20)
        assert [firing.alarm.attempt for firing in fired] == [1, 2]
        assert "ReplyError: " in (fired[1].alarm.last_error or "")
        assert await runtime.get(Bench, "a").read() == ["x"]
    forgotten.close()


@both
async def test_a_commit_of_another_object_that_fails_counts(cls: type[Bench]) -> None:
    async with opened() as runtime:
        key = ObjectKey("Bench", "other")
        script("x", fails(1, lambda: PersistenceError(key, "save", "disk full")))
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        await anyio.sleep(20)
        assert [firing.alarm.attempt for firing in fired] == [1, 2]
        assert "PersistenceError: could not save Bench('other')" in (
            fired[1].alarm.last_error or ""
        )


@both
async def test_a_timeout_of_what_the_handler_calls_counts(cls: type[Bench]) -> None:
    async with opened() as runtime:
        key = ObjectKey("Bench", "other")
        script("x", fails(1, lambda: CallTimeout(key, "read", 5, "it is idle")))
        await runtime.schedule_alarm(cls, "a", "x", after=1)
        await anyio.sleep(20)
        assert [firing.alarm.attempt for firing in fired] == [1, 2]
        assert "CallTimeout: read on Bench('other')" in (fired[1].alarm.last_error or "")


@both
async def test_a_commit_that_fails_does_not_count(cls: type[Bench]) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(cls, "a", "once" if cls is Bench else "thrice", after=1)
        storage.fail_commits(*faults(4))
        await anyio.sleep(100)
        assert len(fired) == 5
        assert {firing.alarm.attempt for firing in fired} == {1}
        assert {firing.alarm.last_error for firing in fired} == {None}
        assert len(await runtime.get(cls, "a").read()) == 1
        assert await runtime.list_dead_letters(cls) == []


async def test_a_load_that_fails_does_not_count() -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Bench, "a", "once", after=1)
        storage.fail_loads(*faults(4))
        await anyio.sleep(100)
        assert [firing.alarm.attempt for firing in fired] == [1]
        assert await runtime.list_dead_letters(Bench) == []


# --- a storage that fails -------------------------------------------------------------------------


async def test_a_claim_that_fails_is_made_again_a_moment_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        for name in ("first", "second"):
            await runtime.schedule_alarm(Bench, "a", name, after=10)
        await anyio.sleep(5)
        storage.fail_alarm_work(*faults(2))
        await anyio.sleep(10)
        assert times() == [12, 12]
        assert names() == ["first", "second"]
        assert "could not claim alarms that are due: disk full" in errors(caplog)[0]
        assert {firing.alarm.attempt for firing in fired} == {1}


async def test_a_look_at_the_table_that_fails_is_made_again_a_moment_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=10)
    await anyio.sleep(20)
    storage.fail_alarm_work(*faults(2))
    async with opened(storage):
        await anyio.sleep(5)
        assert times() == [22]
        assert "could not read alarms that are due: disk full" in errors(caplog)[0]


async def test_a_postponement_that_fails_is_written_a_moment_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=10)
        script("x", fails(1))
        await anyio.sleep(5)
        storage.fail_alarm_work(None, *faults(1))
        await anyio.sleep(200)
        first, second = times()
        assert first == 10
        assert 11 <= second <= 12.1
        assert fired[1].alarm.attempt == 2
        assert "could not postpone 1 alarms: disk full" in errors(caplog)[-1]
        assert await runtime.get(Bench, "a").read() == ["x"]


async def test_while_a_postponement_can_not_be_written_its_alarm_is_not_tried_again() -> None:
    storage = ScriptedStorage()
    async with opened(storage, claim_ttl=60, polling_interval=1000) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=10)
        script("x", fails(1))
        await anyio.sleep(5)
        storage.fail_alarm_work(None, *faults(20))
        await anyio.sleep(15)
        assert times() == [10]
        assert runtime.statistics().alarms_in_flight == 1
        await anyio.sleep(100)
        assert len(fired) == 2
        assert fired[1].alarm.attempt == 2
        assert await runtime.get(Bench, "a").read() == ["x"]


async def test_a_renewal_that_fails_is_made_again_before_the_claim_runs_out() -> None:
    storage = ScriptedStorage()
    async with opened(storage, claim_ttl=60, polling_interval=1000) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1)
        script("x", sleeps(300))
        await anyio.sleep(10)
        for _ in range(5):
            storage.fail_alarm_work(*faults(1))
            await anyio.sleep(40)
        storage.forget_faults()
        await anyio.sleep(500)
        assert names() == ["x"]
        assert await runtime.get(AsyncBench, "a").read() == ["x"]


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_the_storage_fails_at_every_alarm_has_its_effect_once(
    seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "trio_durable.alarms")  # hundreds of tracebacks
    rng = random.Random(seed)
    storage = ScriptedStorage()
    cls = (Bench, AsyncBench)[seed % 2]
    async with opened(storage, call_timeout=None) as runtime:
        for number in range(40):
            await runtime.schedule_alarm(cls, f"{number}", "x", after=rng.uniform(1, 60))
        script("x", fails(1))
        storage.fail_alarm_work(*[rng.choice((None, *faults(1))) for _ in range(150)])
        storage.fail_commits(*[rng.choice((None, None, *faults(1))) for _ in range(40)])
        await anyio.sleep(300)
        storage.forget_faults()
        await anyio.sleep(400)
        logs = [await runtime.get(cls, f"{number}").read() for number in range(40)]
        assert logs == [["x"]] * 40
        statistics = runtime.statistics()
        assert (statistics.alarms_waiting, statistics.alarms_in_flight) == (0, 0)
        assert statistics.alarms_delivered == 40
