"""Alarms superseded during their delivery, and alarms of types not imported."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import anyio
import attrs
import pytest
from cluster.away import first_look
from support.clock import settle
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import Alarm, AlarmSuperseded, DurableObject, DurableRuntime, ObjectKey
from trio_durable.storage import AlarmChanges, Commit, NewAlarm

from .bench import (
    TICK,
    AsyncBench,
    Bench,
    Script,
    Shaky,
    begin,
    both,
    errors,
    faults,
    fired,
    names,
    opened,
    script,
    seen,
    sleeps,
    times,
)

pytestmark = pytest.mark.anyio


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
        await first_look(runtime)
        assert names() == ["y", "x"]
        assert await runtime.get(Bench, "a").read() == ["x"]


async def test_a_heap_of_unknown_alarms_holds_nobody_up() -> None:
    storage = ScriptedStorage()
    _insert(storage, "nobody knows", *(f"{number}" for number in range(5000)))
    _insert(storage, "Bench", "x", due_at=1)
    async with opened(storage) as runtime:
        await first_look(runtime)
        assert names() == ["x"]
        assert runtime.statistics().alarms_waiting == 0
