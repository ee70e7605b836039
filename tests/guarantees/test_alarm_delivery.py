"""From due to acknowledged: failures, claims, other runtimes, backlogs, and clocks that are set."""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import anyio
import attrs
import pytest
from support.clock import VirtualTimeLoop, settle
from support.scripted import ScriptedStorage
from support.tasks import calls
from trio.testing import MockClock

from trio_durable import (
    Alarm,
    AlarmSuperseded,
    CallTimeout,
    Clock,
    DurableObject,
    DurableRuntime,
    InlineRunner,
    MemoryStorage,
    ObjectKey,
    Objects,
    PersistenceError,
    Retry,
    Storage,
    alarm,
    handler,
)
from trio_durable._eventloop.running import running_loop
from trio_durable._keys import AlarmKey
from trio_durable.storage import (
    AlarmChanges,
    Commit,
    NewAlarm,
    Postponement,
    Reader,
    StorageFault,
    StoredAlarm,
    Writer,
)
from trio_durable.storage._forwarding import ForwardingWriter

pytestmark = pytest.mark.anyio

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

TICK = timedelta(milliseconds=1, microseconds=5)
"""How late an alarm may be: ticks are rounded up, and loops round as well."""


@attrs.frozen
class Firing:
    """What an alarm's handler saw when it began."""

    object_id: str
    alarm: Alarm
    at: float
    """By the loop's clock, since the test began."""
    late: timedelta
    runtime: Objects


Script = Callable[[Any], Any]

scripts: dict[str, Script] = {}
"""What handlers do, by the name of the alarm or what they are given."""
fired: list[Firing] = []
seen: list[object] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    scripts.clear()
    fired.clear()
    seen.clear()


def script(name: str, what: Script) -> str:
    scripts[name] = what
    return name


def _nothing(_self: object) -> None:
    pass


def begin(self: DurableObject) -> None:
    current = self.ctx.alarm
    assert current is not None
    services = self.ctx.runtime._open()
    now = _EPOCH + timedelta(microseconds=services.clock.now())
    at = services.loop.now()
    fired.append(Firing(self.ctx.object_id, current, at, now - current.due_at, self.ctx.runtime))


class Bench(DurableObject):
    """Notes the alarms that go off, and does what the script says for their names."""

    log: list[str] = attrs.field(factory=list)

    @handler
    def do(self, what: str) -> None:
        scripts[what](self)

    @handler
    async def do_slowly(self, what: str) -> None:
        await scripts[what](self)

    @handler
    def note(self, what: str) -> None:
        self.log.append(what)

    @handler(readonly=True)
    def read(self) -> list[str]:
        return self.log

    def handle_alarm(self, alarm: Alarm) -> object:  # type: ignore[override]
        return self._act(alarm.name)

    @alarm(retry=Retry(initial=1, factor=1, maximum=1, attempts=3))
    def thrice(self) -> object:
        return self._act("thrice")

    @alarm(retry=Retry(initial=timedelta(seconds=10), factor=3, maximum=60))
    def patient(self) -> object:
        return self._act("patient")

    @alarm(retry=Retry(attempts=1))
    def once(self) -> object:
        return self._act("once")

    def _act(self, name: str) -> object:
        begin(self)
        self.log.append(name)
        return scripts.get(name, _nothing)(self)


class AsyncBench(Bench):
    async def handle_alarm(self, alarm: Alarm) -> object:  # type: ignore[override]
        result = self._act(alarm.name)
        return await result if inspect.isawaitable(result) else result

    @alarm(retry=Retry(initial=1, factor=1, maximum=1, attempts=3))
    async def thrice(self) -> object:
        result = self._act("thrice")
        return await result if inspect.isawaitable(result) else result


class Shaky(DurableObject):
    """Can't begin while the script says so."""

    count: float = 0

    def after_load(self) -> None:
        scripts.get("after_load", _nothing)(self)

    @handler(readonly=True)
    def read(self) -> float:
        return self.count

    def handle_alarm(self, alarm: Alarm) -> None:
        begin(self)
        self.count += 1
        scripts.get(alarm.name, _nothing)(self)


OBJECTS = (Bench, AsyncBench, Shaky)

both = pytest.mark.parametrize("cls", [Bench, AsyncBench])


def opened(storage: ScriptedStorage | None = None, **options: Any) -> DurableRuntime:
    storage = storage or ScriptedStorage()
    given: dict[str, Any] = {"objects": OBJECTS, "runner": storage.runner, **options}
    return DurableRuntime(storage, **given)


def names(firings: Sequence[Firing] | None = None) -> list[str]:
    return [firing.alarm.name for firing in (fired if firings is None else firings)]


def times() -> list[float]:
    return [round(firing.at, 2) for firing in fired]


def raises(_self: object) -> None:
    raise KeyError("on purpose")


def fails(times: float, error: Callable[[], Exception] = lambda: KeyError("on purpose")) -> Script:
    """Let an object's alarm fail so many times, and then do nothing."""
    counts: Counter[str] = Counter()

    def act(self: DurableObject) -> None:
        counts[self.ctx.object_id] += 1
        if counts[self.ctx.object_id] <= times:
            raise error()

    return act


def faults(number: int) -> list[StorageFault]:
    return [StorageFault("disk full") for _ in range(number)]


def sleeps(seconds: float) -> Script:
    async def act(_self: object) -> None:
        await anyio.sleep(seconds)

    return act


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "trio_durable.alarms" and record.levelno >= logging.WARNING
    ]


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
        assert "could not look for alarms that are due: disk full" in errors(caplog)[0]


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


# --- superseded -----------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[DurableRuntime, type[Bench]], Any]] = {
    "set anew": lambda runtime, cls: runtime.schedule_alarm(
        cls, "a", "x", after=100, payload="new"
    ),
    "cancelled": lambda runtime, cls: runtime.cancel_alarm(cls, "a", "x"),
    "all cancelled": lambda runtime, cls: runtime.cancel_all_alarms(cls, "a"),
}
CHANGES_INSIDE: dict[str, Script] = {
    "set anew": lambda self: self.ctx.schedule_alarm("x", after=100, payload="new"),
    "cancelled": lambda self: self.ctx.cancel_alarm("x"),
    "all cancelled": lambda self: self.ctx.cancel_all_alarms(),
    "deleted": lambda self: self.ctx.delete(),
}


def check_superseded(how: str, caplog: pytest.LogCaptureFixture, *, began: int = 0) -> None:
    """That the alarm fired at its new time only, if it has one; after it ``began`` in vain."""
    assert names() == ["x"] * (began + (how == "set anew"))
    assert [firing.alarm.payload for firing in fired[began:]] == ["new"] * (how == "set anew")
    assert all(timedelta(0) <= firing.late < TICK for firing in fired[began:])
    assert [firing.alarm.attempt for firing in fired[began:]] == [1] * (how == "set anew")
    assert errors(caplog) == []


@both
@pytest.mark.parametrize("how", CHANGES)
async def test_an_alarm_changed_while_it_waits_for_its_turn_never_fires_its_old_time(
    cls: type[Bench], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(call_timeout=None) as runtime, calls() as group:
        bench = runtime.get(cls, "a")
        await runtime.schedule_alarm(cls, "a", "x", after=1, payload="old")
        turn = group.start(bench.do_slowly, script("sleep", sleeps(5)))
        await anyio.sleep(2)
        assert runtime.statistics().alarms_in_flight == 1
        behind = group.start(bench.note, "behind")
        await CHANGES[how](runtime, cls)
        await anyio.sleep(200)
        assert turn.error is behind.error is None
        check_superseded(how, caplog)
        assert runtime.statistics().alarms_failed == 0
        assert runtime.statistics().alarms_in_flight == 0
        assert await bench.read() == (["behind", "x"] if how == "set anew" else ["behind"])


@both
@pytest.mark.parametrize("how", CHANGES_INSIDE)
@pytest.mark.parametrize("durable", [True, False])
async def test_an_alarm_changed_by_a_turn_before_its_own_never_fires_its_old_time(
    cls: type[Bench], how: str, durable: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def sleep_and_change(self: Bench) -> None:
        await anyio.sleep(5)
        CHANGES_INSIDE[how](self)

    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime, calls() as group:
        bench = runtime.get(cls, "a")
        await runtime.schedule_alarm(cls, "a", "x", after=1, payload="old")
        group.start(bench.do_slowly, script("change", sleep_and_change))
        await anyio.sleep(2)
        behind = group.start(bench.note, "behind")
        if durable:
            await anyio.sleep(10)
        else:
            with storage.held("writer"):  # its change isn't durable when the alarm's turn comes
                await anyio.sleep(10)
        await anyio.sleep(200)
        check_superseded(how, caplog)
        assert behind.error is None
        assert runtime.statistics().alarms_failed == 0


@pytest.mark.parametrize("how", CHANGES)
async def test_an_alarm_changed_while_its_handler_runs_is_rolled_back(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def set_and_sleep(self: AsyncBench) -> None:
        if len(fired) == 1:
            self.ctx.schedule_alarm("other", after=0)
            await anyio.sleep(5)

    async with opened(call_timeout=None) as runtime, calls() as group:
        bench = runtime.get(AsyncBench, "a")
        await bench.note("before")
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1, payload="old")
        script("x", set_and_sleep)
        await anyio.sleep(2)
        behind = group.start(bench.note, "behind")
        await CHANGES[how](runtime, AsyncBench)
        await anyio.sleep(20)
        assert behind.done
        assert behind.error is None
        assert await bench.read() == ["before", "behind"]
        await anyio.sleep(200)
        check_superseded(how, caplog, began=1)
        assert runtime.statistics().alarms_failed == 0
        assert await runtime.list_alarms(AsyncBench, "a") == []


@pytest.mark.parametrize("how", CHANGES)
async def test_a_commit_within_a_superseded_handler_is_refused(how: str) -> None:
    async def sleep_and_commit(self: AsyncBench) -> None:
        if len(fired) == 1:
            await anyio.sleep(5)
            try:
                await self.ctx.commit()
            except AlarmSuperseded as error:
                seen.append(error)
                raise

    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1, payload="old")
        script("x", sleep_and_commit)
        await anyio.sleep(2)
        await CHANGES[how](runtime, AsyncBench)
        await anyio.sleep(10)
        (error,) = seen
        assert isinstance(error, AlarmSuperseded)
        assert error.key == ObjectKey("AsyncBench", "a")
        assert storage.rows() == {}
        assert runtime.statistics().alarms_failed == 0


async def test_an_alarm_set_anew_for_now_while_its_handler_runs_fires_when_that_has_ended() -> None:
    async with opened(call_timeout=None) as runtime:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1, payload="old")
        script("x", lambda self: anyio.sleep(5 if len(fired) == 1 else 0))
        await anyio.sleep(2)
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=0, payload="new")
        await anyio.sleep(200)
        assert times() == [1, 6]
        assert fired[1].alarm.payload == "new"
        assert await runtime.get(AsyncBench, "a").read() == ["x"]


async def test_an_alarm_changed_in_vain_while_its_handler_runs_is_not_lost() -> None:
    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime, calls() as group:
        await runtime.schedule_alarm(AsyncBench, "a", "x", after=1, payload="old")
        script("x", lambda self: anyio.sleep(5 if len(fired) == 1 else 0))
        await anyio.sleep(2)
        storage.fail_commits(*faults(1))
        with storage.held("writer"):
            change = group.start(
                runtime.schedule_alarm, AsyncBench, "a", "x", after=1000, payload="new"
            )
            await anyio.sleep(10)
        await anyio.sleep(100)
        assert change.error is not None
        assert [firing.alarm.payload for firing in fired] == ["old", "old"]
        assert await runtime.get(AsyncBench, "a").read() == ["x"]


async def test_an_alarm_changed_between_its_claim_and_its_delivery_never_fires_its_old_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with opened(storage, call_timeout=None) as runtime, calls() as group:
        bench = runtime.get(Bench, "a")
        await bench.note("before")
        await runtime.schedule_alarm(Bench, "a", "x", after=1, payload="old")
        with storage.held("writer"):
            await anyio.sleep(2)
            # Behind the claim in the writer's queue, so that both are done in one go.
            change = group.start(runtime.schedule_alarm, Bench, "a", "x", after=98, payload="new")
            await settle()
        call = group.start(bench.note, "behind")
        await anyio.sleep(1)
        assert change.error is call.error is None
        assert names() == []
        await anyio.sleep(200)
        check_superseded("set anew", caplog)
        assert await bench.read() == ["before", "behind", "x"]


async def test_alarms_changed_while_others_of_their_claim_are_delivered_keep_their_new_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with opened(call_timeout=None) as runtime, calls() as group:
        ids = [f"{number:03}" for number in range(200)]
        for object_id in ids:
            await runtime.get(Bench, object_id).note("before")
            await runtime.schedule_alarm(Bench, object_id, "x", after=1, payload="old")

        def put_off_the_last(self: Bench) -> None:
            if self.ctx.object_id == ids[0]:
                for object_id in ids[100:]:
                    group.start(
                        runtime.schedule_alarm, Bench, object_id, "x", after=50, payload="new"
                    )

        script("x", put_off_the_last)
        await anyio.sleep(200)
        # Which of them came before their change is the loop's business; none came after it.
        for object_id in ids:
            log = await runtime.get(Bench, object_id).read()
            payloads = [each.alarm.payload for each in fired if each.object_id == object_id]
            assert log == ["before", *("x" for _ in payloads)]
            assert payloads in ([["old"]] if object_id < "100" else [["new"], ["old", "new"]])
        assert errors(caplog) == []


# --- types that nobody imported -------------------------------------------------------------------

_numbers = count(1)


def _insert(storage: ScriptedStorage, type_name: str, *names: str, due_at: int = 0) -> None:
    writer = storage.memory.open_writer()
    changes = AlarmChanges(changed={name: NewAlarm(due_at, b'"kept"') for name in names})
    assert not writer.commit([Commit(ObjectKey(type_name, "a"), None, alarms=changes)], 0)
    writer.close()


async def test_alarms_of_an_unknown_type_wait_until_it_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    type_name = f"known later {next(_numbers)}"
    storage = ScriptedStorage()
    _insert(storage, type_name, "x", "y")
    async with opened(storage, objects=None, polling_interval=10):
        await anyio.sleep(95)
        (warning,) = errors(caplog)  # once, however often it was looked
        assert type_name in warning
        assert "kept" in warning
        assert "import the module that defines it" in warning

        class KnownLater(DurableObject, name=type_name):
            log: list[object] = attrs.field(factory=list)

            def handle_alarm(self, alarm: Alarm) -> None:
                begin(self)

        await anyio.sleep(10)
        assert sorted(names()) == ["x", "y"]
        assert {firing.alarm.payload for firing in fired} == {"kept"}
        assert {firing.alarm.attempt for firing in fired} == {1}
        await anyio.sleep(200)
        assert len(fired) == 2
        assert len(errors(caplog)) == 1


async def test_alarms_of_types_that_are_not_served_are_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    storage = ScriptedStorage()
    async with opened(storage) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=10)
        await runtime.schedule_alarm(Shaky, "a", "y", after=10)
    async with opened(storage, objects=[Shaky]):
        await anyio.sleep(300)
        assert names() == ["y"]
        (warning,) = errors(caplog)
        assert "'Bench'" in warning
    async with opened(storage) as runtime:
        await anyio.sleep(0.1)
        assert names() == ["y", "x"]
        assert await runtime.get(Bench, "a").read() == ["x"]


async def test_a_heap_of_unknown_alarms_holds_nobody_up() -> None:
    storage = ScriptedStorage()
    _insert(storage, "nobody knows", *(f"{number}" for number in range(5000)))
    _insert(storage, "Bench", "x", due_at=1)
    async with opened(storage) as runtime:
        await anyio.sleep(0.01)
        assert names() == ["x"]
        assert runtime.statistics().alarms_waiting == 0


# --- claims of several runtimes -------------------------------------------------------------------


class SharedStorage:
    """Objects in memory that several runtimes have open at a time.

    Nobody's claims are given back when one opens, as with a database on a network.
    """

    def __init__(self) -> None:
        self.memory = MemoryStorage()
        self.writer = self.memory.open_writer()

    def side(self) -> Side:
        """The storage for one of the runtimes."""
        return Side(self)


class Side(Storage):
    def __init__(self, shared: SharedStorage) -> None:
        self._shared = shared
        self.dead = False
        """Nothing reaches the storage any more, as if the process were gone."""
        self.renews = True

    @property
    def location(self) -> str:
        return ":shared:"

    def open_writer(self) -> Writer:
        return _SideWriter(self, self._shared.writer)

    def open_reader(self) -> Reader:
        return self._shared.memory.open_reader()


class _SideWriter(ForwardingWriter):
    def __init__(self, side: Side, inner: Writer) -> None:
        super().__init__(inner)
        self._side = side

    def _check(self, works: bool = True) -> None:
        if self._side.dead or not works:
            raise StorageFault("the process is gone")

    def commit(self, batch: Sequence[Commit], now: int) -> Any:
        self._check()
        return super().commit(batch, now)

    def claim(
        self, alarms: Sequence[AlarmKey], claim: int, now: int, until: int
    ) -> list[StoredAlarm]:
        self._check()
        return super().claim(alarms, claim, now, until)

    def renew(self, claims: Sequence[tuple[AlarmKey, int]], until: int) -> None:
        self._check(self._side.renews)
        super().renew(claims, until)

    def postpone(self, postponements: Sequence[Postponement]) -> None:
        self._check()
        super().postpone(postponements)

    def close(self) -> None:
        pass  # the others go on


def sharing(side: Side, **options: Any) -> DurableRuntime:
    return DurableRuntime(side, objects=OBJECTS, runner=InlineRunner, **options)


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
        await anyio.sleep(0.01)
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
        await anyio.sleep(0.01)
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
    async with opened(storage):
        await anyio.sleep(0.01)
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


# --- clocks that are set --------------------------------------------------------------------------

HOUR = 3600


class WallClock(Clock):
    """Goes with the loop, and can be set."""

    def __init__(self) -> None:
        self._loop_now = running_loop().now
        self.ahead = 0.0
        """In seconds."""

    @property
    def may_jump(self) -> bool:
        return True

    def now(self) -> int:
        return 1_900_000_000_000_000 + round((self._loop_now() + self.ahead) * 1e6)


async def test_what_a_clock_set_forward_makes_due_fires_within_a_second() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        for number, after in enumerate((50, 40, 3000, 30, HOUR - 1, HOUR + 100)):
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=after)
        await anyio.sleep(10.5)
        clock.ahead = HOUR
        await anyio.sleep(1.001)
        assert [firing.object_id for firing in fired] == ["3", "1", "0", "2", "4"]
        # The last one follows the new time.
        await anyio.sleep(100 - 11.5 - 0.1)
        assert len(fired) == 5
        await anyio.sleep(0.2)
        assert len(fired) == 6


async def test_nothing_fires_early_after_a_clock_was_set_back() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=20)
        await runtime.schedule_alarm(Bench, "b", "x", after=HOUR)
        await anyio.sleep(10)
        clock.ahead = -HOUR
        await anyio.sleep(5)
        await runtime.schedule_alarm(Bench, "c", "x", after=5)
        await anyio.sleep(10)
        assert [firing.object_id for firing in fired] == ["c"]
        await anyio.sleep(HOUR - 6)
        assert [firing.object_id for firing in fired] == ["c"]
        await anyio.sleep(2)
        assert [firing.object_id for firing in fired] == ["c", "a"]
        await anyio.sleep(HOUR)
        assert [firing.object_id for firing in fired] == ["c", "a", "b"]
        assert all(timedelta(0) <= firing.late < TICK for firing in fired)


async def test_what_has_become_due_does_not_fire_once_the_clock_was_set_back() -> None:
    clock = WallClock()
    storage = ScriptedStorage()
    async with opened(storage, clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "x", after=20)
        await anyio.sleep(19)
        storage.fail_alarm_work(*faults(5))
        await anyio.sleep(2.5)  # due, but it could not be claimed
        assert storage.claims
        clock.ahead = -HOUR
        await anyio.sleep(HOUR - 10)
        assert fired == []
        await anyio.sleep(10)
        assert len(fired) == 1
        assert timedelta(0) <= fired[0].late < TICK


async def test_a_failed_alarm_is_tried_again_after_the_clock_was_set() -> None:
    clock = WallClock()
    async with opened(clock=clock) as runtime:
        await runtime.schedule_alarm(Bench, "a", "patient", after=1)
        script("patient", fails(3))
        await anyio.sleep(2)
        clock.ahead = HOUR
        await anyio.sleep(1.001)
        assert len(fired) == 2
        clock.ahead = 0
        await anyio.sleep(HOUR + 300)
        assert len(fired) == 4
        assert await runtime.get(Bench, "a").read() == ["patient"]


async def test_after_a_suspension_overdue_alarms_come_oldest_first_and_once() -> None:
    clock = WallClock()
    shared = SharedStorage()
    async with sharing(shared.side(), clock=clock) as runtime:
        await runtime.schedule_alarm(AsyncBench, "slow", "slow", after=1)
        script("slow", sleeps(100))
        for number in range(50):
            await runtime.schedule_alarm(Bench, f"{number}", "x", after=60 + number * 37 % 50 * 60)
        await anyio.sleep(10)
        clock.ahead = 8 * HOUR  # the loop's own clock stood still meanwhile
        await anyio.sleep(1.001)
        assert names() == ["slow"] + ["x"] * 50
        due = [firing.alarm.due_at for firing in fired]
        assert due == sorted(due)
        await anyio.sleep(500)
        # Its claim had run out long ago, but this runtime has it in hands.
        assert names().count("slow") == 1
        assert await runtime.get(AsyncBench, "slow").read() == ["slow"]


# --- long times -----------------------------------------------------------------------------------

DAY = timedelta(days=1)

rung: list[tuple[str, str, datetime, int]] = []


class Rota(DurableObject):
    """Does some things once a day."""

    @handler
    def begin(self, first: datetime, minutes: list[int]) -> None:
        for number, minute in enumerate(minutes):
            self.ctx.schedule_alarm(f"{number}", at=first + timedelta(minutes=minute))

    def handle_alarm(self, alarm: Alarm) -> None:
        now = self.ctx.runtime._open().clock.now()
        late = now - (alarm.due_at - _EPOCH) // timedelta(microseconds=1)
        rung.append((self.ctx.object_id, alarm.name, alarm.due_at, late))
        self.ctx.schedule_alarm(alarm.name, at=alarm.due_at + DAY)


async def _week(objects: int, alarms: int) -> datetime:
    """Let daily alarms ring for a week; when they began."""
    rung.clear()
    options: dict[str, Any] = {"polling_interval": 6 * HOUR, "claim_ttl": 6 * HOUR}
    async with DurableRuntime(":memory:", objects=[Rota], **options) as runtime:
        first = _EPOCH + timedelta(microseconds=runtime._open().clock.now(), minutes=1)
        for number in range(objects):
            minutes = [(number * alarms + i) * 7919 % 144 * 10 for i in range(alarms)]
            await runtime.get(Rota, f"{number}").begin(first, minutes)
        await anyio.sleep(7 * 86400 + 30)
    return first


def _check_week(first: datetime, objects: int, alarms: int) -> None:
    expected = {}
    for number in range(objects):
        for i in range(alarms):
            minute = (number * alarms + i) * 7919 % 144 * 10
            begins = first + timedelta(minutes=minute)
            expected[f"{number}", f"{i}"] = [begins + DAY * day for day in range(7)]
    found: dict[tuple[str, str], list[datetime]] = {}
    for object_id, name, due_at, late in rung:
        found.setdefault((object_id, name), []).append(due_at)
        assert 0 <= late < 1005
    assert found == expected


def test_a_week_of_ten_thousand_recurring_alarms_passes_in_seconds() -> None:
    first = anyio.run(_week, 100, 100, backend_options={"loop_factory": VirtualTimeLoop})
    assert len(rung) == 70_000
    _check_week(first, 100, 100)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_week_is_the_same_each_time(backend: str) -> None:
    runs = []
    for _ in range(2):
        options: dict[str, Any] = {"loop_factory": VirtualTimeLoop}
        if backend == "trio":
            options = {"clock": MockClock(autojump_threshold=0)}
        first = anyio.run(_week, 50, 10, backend=backend, backend_options=options)
        _check_week(first, 50, 10)
        runs.append([(object_id, name, due_at - first) for object_id, name, due_at, _ in rung])
    assert runs[0] == runs[1]


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
