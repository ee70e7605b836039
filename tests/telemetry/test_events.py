"""Events of an instrument, and their times."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from support.clock import settle
from support.recording import Recorder
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import (
    ActivationFailed,
    CallTimeout,
    DurableRuntime,
    InvalidAlarm,
    InvalidObjectId,
    ObjectKey,
    PersistenceError,
    RuntimeClosed,
    StaleObject,
    ThreadRunner,
    WrongEventLoop,
)
from trio_durable._errors import AlarmSuperseded
from trio_durable._persistence.ticket import Ticket
from trio_durable.scheduler import WheelScheduler
from trio_durable.storage import AlarmChanges, NewAlarm, PartialFault, StorageFault
from trio_durable.storage import Commit as Commit_
from trio_durable.telemetry import (
    Activated,
    AlarmDelivery,
    AlarmUpdate,
    Call,
    Closed,
    Commit,
    DeadLettered,
    Delete,
    Entered,
    Hibernated,
    Instrument,
    Left,
    Load,
    Opened,
    Point,
    Save,
    Stale,
    Timed,
    Turn,
    Woken,
)

from .objects import (
    Counter,
    Fleeting,
    Lasting,
    SlowlyUnwelcoming,
    SlowlyWelcoming,
    Unwelcoming,
    Welcoming,
    Wrong,
)

KEY = ObjectKey("Counter", "a")


@asynccontextmanager
async def recorded(
    storage: ScriptedStorage | None = None, **options: Any
) -> AsyncIterator[tuple[DurableRuntime, Recorder]]:
    """A runtime and what it tells; at the end, all that began must have ended."""
    storage = storage or ScriptedStorage()
    recorder = Recorder()
    async with DurableRuntime(
        storage, runner=storage.runner, instruments=[recorder], **options
    ) as runtime:
        yield runtime, recorder
    recorder.check()


# --- calls and turns -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_first_call_is_told_from_its_beginning_to_its_reply() -> None:
    async with recorded() as (_, recorder):
        await Counter.add("a", 2)
        assert recorder.story == [
            "event Opened",
            "start Call",
            "event Entered",
            "start Load",
            "stop Load",
            "event Activated",
            "start Turn",
            "stop Turn",
            "start Commit",
            "start Save",
            "stop Save",
            "stop Commit",
            "stop Call",
        ]


@pytest.mark.anyio
async def test_a_call_its_turn_and_their_save_refer_to_each_other() -> None:
    async with recorded() as (_, recorder):
        await Counter.add("a")
        call, turn, commit = recorder.one(Call), recorder.one(Turn), recorder.one(Commit)
        save = recorder.one(Save)
    assert (call.key, call.handler, call.mailbox_depth) == (KEY, "add", 0)
    assert (turn.key, turn.handler, turn.readonly) == (KEY, "add", False)
    assert turn.request is call
    assert turn.function is not None
    assert turn.function.__qualname__ == "Counter.add"
    assert (save.key, save.revision, save.size) == (KEY, 1, len(b'{"count":1,"$as":{}}'))
    assert save.turns == (turn,)
    assert commit.changes == (save,)
    assert commit.size == save.size


@pytest.mark.anyio
async def test_a_read_has_a_turn_and_no_commit() -> None:
    async with recorded() as (_, recorder):
        await Counter.add("a")
        recorder.clear()
        await Counter.value("a")
        assert recorder.story == ["start Call", "start Turn", "stop Turn", "stop Call"]
        assert recorder.one(Turn).readonly


@pytest.mark.anyio
async def test_the_duration_of_a_turn_is_that_of_its_handler() -> None:
    async with recorded() as (_, recorder):
        await Counter.add_slowly("a", 3)
        turn, call = recorder.one(Turn), recorder.one(Call)
        assert turn.request is call
        assert recorder.one(Save).turns == (turn,)
        assert recorder.end_of(turn).duration == pytest.approx(3, abs=0.001)
        assert recorder.end_of(call).duration == pytest.approx(3, abs=0.001)


@pytest.mark.anyio
async def test_calls_tell_how_many_they_find_waiting() -> None:
    async with recorded() as (_, recorder), calls() as others:
        for _ in range(3):
            others.start(Counter.add_slowly, "a", 1)
            await settle()
        # The first is under way and doesn't wait.
        assert [call.mailbox_depth for call in recorder.all(Call, "start")] == [0, 0, 1]


@pytest.mark.anyio
async def test_turns_that_share_a_commit_are_all_in_it() -> None:
    storage = ScriptedStorage()
    async with recorded(storage) as (_, recorder), calls() as others:
        await Counter.value("a")
        await Counter.value("b")
        recorder.clear()
        with storage.held("writer"):
            for object_id in "aab":
                others.start(Counter.add, object_id)
            others.start(Counter.add_slowly, "b", 0)
            await settle()
            assert recorder.all(Commit) == []
        await settle()
        turns = recorder.all(Turn, "stop")
        of_a = tuple(turn for turn in turns if turn.key.object_id == "a")
        of_b = tuple(turn for turn in turns if turn.key.object_id == "b")
        assert (len(of_a), len(of_b)) == (2, 2)
        [first, second] = recorder.one(Commit).changes
        assert {first.turns, second.turns} == {of_a, of_b}


@pytest.mark.anyio
async def test_a_turn_that_commits_twice_is_in_both_commits() -> None:
    async with recorded() as (_, recorder):
        await Counter.add_twice("a")
        turn = recorder.one(Turn)
        saves = recorder.all(Save, "stop")
        assert [(save.revision, save.turns) for save in saves] == [(1, (turn,)), (2, (turn,))]


@pytest.mark.anyio
async def test_a_turn_that_commits_twice_into_one_transaction_is_in_it_once() -> None:
    storage = ScriptedStorage()
    async with recorded(storage) as (_, recorder), calls() as others:
        await Counter.value("a")
        with storage.held("writer"):
            await settle()
            others.start(Counter.add, "a")
            await settle()
            others.start(Counter.add_twice, "a")
            await settle()
        await settle()
        [first, second] = recorder.all(Save, "stop")
        # The first commit of `add_twice` joins that of `add`; its second one comes after it.
        [add, twice] = recorder.all(Turn, "stop")[1:]
        assert (first.turns, second.turns) == ((add, twice), (twice,))


@pytest.mark.anyio
@pytest.mark.parametrize("handler", ["fail", "fail_slowly"])
async def test_what_a_handler_raises_ends_turn_and_call(handler: str) -> None:
    async with recorded() as (runtime, recorder):
        with pytest.raises(Wrong) as caught:
            await runtime.call(Counter, "a", handler)
        assert recorder.end_of(recorder.one(Turn)).error is caught.value
        assert recorder.end_of(recorder.one(Call)).error is caught.value
        assert recorder.all(Commit) == []


@pytest.mark.anyio
async def test_a_call_that_is_given_up_while_queued_ends_without_a_turn() -> None:
    async with recorded() as (_, recorder), calls() as others:
        others.start(Counter.add_slowly, "a", 3)
        await settle()
        cancelled = others.start(Counter.add, "a")
        await settle()
        cancelled.cancel()
        await settle()
        call = recorder.all(Call, "start")[1]
        assert isinstance(recorder.end_of(call).error, anyio.get_cancelled_exc_class())
        await anyio.sleep(4)
        assert [turn.handler for turn in recorder.all(Turn, "start")] == ["add_slowly"]


@pytest.mark.anyio
async def test_a_call_that_times_out_ends_before_its_turn() -> None:
    async with recorded() as (runtime, recorder):
        with pytest.raises(CallTimeout) as caught:
            await runtime.get(Counter, "a", timeout=1).add_slowly(3)
        call, turn = recorder.one(Call), recorder.one(Turn)
        assert recorder.end_of(call).error is caught.value
        assert turn in recorder.under_way
        await anyio.sleep(3)
        assert recorder.end_of(turn).error is None
        assert recorder.one(Save).turns == (turn,)


@pytest.mark.anyio
async def test_a_call_from_a_turn_is_told_within_it() -> None:
    async with recorded() as (_, recorder):
        await Counter.add_to("a", "b")
        outer, inner = recorder.all(Turn, "start")
        assert [outer.key.object_id, inner.key.object_id] == ["a", "b"]
        assert isinstance(inner.request, Call)
        assert inner.request.key.object_id == "b"
        story = [
            (t.what, t.event.key.object_id) for t in recorder.told if isinstance(t.event, Turn)
        ]
        assert story == [("start", "a"), ("start", "b"), ("stop", "b"), ("stop", "a")]


@pytest.mark.anyio
async def test_what_the_runtime_does_to_an_object_is_a_call_with_a_turn() -> None:
    async with recorded() as (runtime, recorder):
        await runtime.put_state(Counter, "a", Counter(count=5))
        await runtime.ensure_started(Counter, "a")
        await runtime.get_state(Counter, "a")
        await runtime.exists(Counter, "a")
        await runtime.delete(Counter, "a")
        names = ["put_state", "ensure_started", "get_state", "exists", "delete"]
        assert [call.handler for call in recorder.all(Call, "stop")] == names
        turns = recorder.all(Turn, "stop")
        assert [turn.handler for turn in turns] == names
        assert [turn.request for turn in turns] == recorder.all(Call, "stop")
        assert recorder.one(Save).turns == (turns[0],)
        assert recorder.one(Delete).turns == (turns[-1],)


@pytest.mark.anyio
async def test_what_is_refused_at_the_door_is_no_call() -> None:
    recorder = Recorder()
    async with DurableRuntime(":memory:", instruments=[recorder]) as runtime:
        counter = runtime.get(Counter, "a")
        recorder.clear()
        with pytest.raises(InvalidObjectId):
            await Counter.add("")
        with pytest.raises(InvalidObjectId):
            await Counter.add(["a"])  # type: ignore[arg-type]
    with pytest.raises(RuntimeClosed):
        await counter.add()
    assert recorder.story == ["event Closed"]


# --- loading and after_load ----------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("cls", [Welcoming, SlowlyWelcoming])
async def test_after_load_is_a_turn_of_nobody(
    cls: type[Welcoming | SlowlyWelcoming],
) -> None:
    storage = ScriptedStorage()
    for was_stored in (False, True):
        async with recorded(storage) as (_, recorder):
            await cls.is_greeted("a")
            after_load, turn = recorder.all(Turn, "stop")
            assert (after_load.handler, after_load.request) == ("after_load", None)
            assert turn.request is recorder.one(Call)
            assert recorder.one(Activated).was_stored is was_stored
            saves = [] if was_stored else [(after_load,)]
            assert [save.turns for save in recorder.all(Save, "stop")] == saves


@pytest.mark.anyio
@pytest.mark.parametrize("cls", [Unwelcoming, SlowlyUnwelcoming])
async def test_an_after_load_that_raises_is_told_and_activates_nothing(
    cls: type[Unwelcoming | SlowlyUnwelcoming],
) -> None:
    async with recorded() as (_, recorder):
        with pytest.raises(ActivationFailed):
            await cls.noop("a")
        assert isinstance(recorder.end_of(recorder.one(Turn)).error, Wrong)
        assert recorder.all(Activated) == []
        assert recorder.one(Left).reason == "ended"


@pytest.mark.anyio
async def test_a_load_lasts_until_the_object_has_it() -> None:
    storage = ScriptedStorage()
    async with recorded(storage) as (_, recorder), calls() as others:
        with storage.held("reader"):
            others.start(Counter.add, "a")
            others.start(Counter.add, "a")
            await settle()
            await anyio.sleep(2)
        await settle()
        assert recorder.end_of(recorder.one(Load)).duration == pytest.approx(2, abs=0.001)


@pytest.mark.anyio
async def test_a_load_that_fails_ends_with_the_fault() -> None:
    storage = ScriptedStorage()
    fault = StorageFault("a bad block")
    storage.fail_loads(fault)
    async with recorded(storage) as (_, recorder):
        with pytest.raises(PersistenceError):
            await Counter.add("a")
        assert recorder.end_of(recorder.one(Load)).error is fault
        assert recorder.all(Turn) == []


@pytest.mark.anyio
async def test_what_a_closing_runtime_cuts_off_ends_with_that() -> None:
    storage = ScriptedStorage()
    recorder = Recorder()

    async def release_later() -> None:
        await anyio.sleep(10)
        await held.aclose()

    async with (
        calls() as others,
        AsyncExitStack() as held,
        DurableRuntime(
            storage,
            runner=storage.runner,
            instruments=[recorder],
            grace_period=1,
            close_timeout=20,
        ),
    ):
        await Counter.add("saving")
        others.start(Counter.add_slowly, "turning", 60)
        await settle()
        held.enter_context(storage.held("reader"))
        held.enter_context(storage.held("writer"))
        others.start(Counter.add, "loading")
        # It wants to leave memory, which it can't before its commit is durable.
        others.start(Counter.forget, "saving")
        others.start(release_later)
        await settle()
    [turn] = [turn for turn in recorder.all(Turn) if turn.handler == "add_slowly"][:1]
    assert isinstance(recorder.end_of(turn).error, RuntimeClosed)
    load = recorder.all(Load)[-1]
    assert load.key.object_id == "loading"
    assert isinstance(recorder.end_of(load).error, RuntimeClosed)
    assert [left.reason for left in recorder.all(Left)] == ["closed"] * 3
    recorder.check()


# --- commits -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_commit_that_fails_ends_with_the_fault() -> None:
    storage = ScriptedStorage()
    fault = StorageFault("the disk is full")
    async with recorded(storage) as (_, recorder):
        await Counter.value("a")
        recorder.clear()
        storage.fail_commits(fault)
        with pytest.raises(PersistenceError) as caught:
            await Counter.add("a")
        assert recorder.end_of(recorder.one(Commit)).error is fault
        assert recorder.end_of(recorder.one(Save)).error is fault
        # The turn itself was all right.
        assert recorder.end_of(recorder.one(Turn)).error is None
        assert recorder.end_of(recorder.one(Call)).error is caught.value


@pytest.mark.anyio
async def test_a_commit_that_is_divided_fails_and_its_changes_end_with_the_parts() -> None:
    storage = ScriptedStorage()
    fault, again = PartialFault("refused"), PartialFault("refused again")
    async with recorded(storage) as (_, recorder), calls() as others:
        await Counter.value("a")
        await Counter.value("b")
        recorder.clear()
        storage.fail_commits(fault, None, again)
        with storage.held("writer"):
            others.start(Counter.add, "a")
            await settle()
            refused = others.start(Counter.add, "b")
            await settle()
        await settle()
        assert isinstance(refused.error, PersistenceError)
        whole, first, second = recorder.all(Commit, "start")
        assert [recorder.end_of(each).error for each in (whole, first, second)] == [
            fault,
            None,
            again,
        ]
        assert whole.changes == (*first.changes, *second.changes)
        assert recorder.all(Save, "start") == list(whole.changes)
        assert [recorder.end_of(change).error for change in whole.changes] == [None, again]


@pytest.mark.anyio
async def test_a_stale_object_is_told_and_the_others_of_its_commit_are_fine() -> None:
    storage = ScriptedStorage()
    async with recorded(storage) as (_, recorder), calls() as others:
        await Counter.add("a")
        await Counter.add("b")
        storage.overwrite("Counter", "a", b'{"count":7}')
        recorder.clear()
        with storage.held("writer"):
            stale = others.start(Counter.add, "a")
            others.start(Counter.add, "b")
            await settle()
        await settle()
        assert isinstance(stale.error, StaleObject)
        assert (recorder.one(Stale).key, recorder.one(Stale).revision) == (KEY, 1)
        assert recorder.end_of(recorder.one(Commit)).error is None
        ends = {
            change.key.object_id: recorder.end_of(change).error
            for change in recorder.one(Commit).changes
        }
        assert isinstance(ends["a"], StaleObject)
        assert ends["b"] is None


@pytest.mark.anyio
async def test_what_builds_on_a_stale_commit_is_refused_but_not_stale_itself() -> None:
    storage, recorder = ScriptedStorage(), Recorder()
    async with (
        DurableRuntime(
            storage, runner=ThreadRunner, call_timeout=None, instruments=[recorder]
        ) as runtime,
        calls() as others,
    ):
        counter = runtime.get(Lasting, "a")
        await counter.add()
        await Lasting.add("b")
        storage.overwrite("Lasting", "a", b"{}")
        with storage.blocked_writer():
            others.start(counter.add)
            await settle()
            storage.writer_busy.wait()
            behind = others.start(counter.add)
            others.start(Lasting.add, "b")
            await settle()
            storage.writer_busy.clear()
        # The loop stands still here, so it knows of the first only when the second is written.
        storage.writer_busy.wait()
        await behind.wait()
        assert isinstance(behind.error, StaleObject)
        await Lasting.add("b")
        assert recorder.one(Stale).revision == 1
        first, second = recorder.all(Save, "exception")
        assert isinstance(recorder.end_of(first).error, StaleObject)
        assert type(recorder.end_of(second).error) is PersistenceError
    recorder.check()


@pytest.mark.anyio
async def test_a_deletion_is_told_with_its_turn() -> None:
    async with recorded() as (_, recorder):
        await Counter.add("a")
        recorder.clear()
        await Counter.forget("a")
        assert recorder.one(Delete).turns == (recorder.one(Turn),)
        assert recorder.one(Left).reason == "ended"


@pytest.mark.anyio
async def test_alarms_changed_from_outside_are_a_call_and_no_turn() -> None:
    async with recorded() as (runtime, recorder), calls() as others:
        others.start(Counter.add_slowly, "a", 3)
        await settle()
        await runtime.schedule_alarm(Counter, "a", "ring", after=60)
        # Though a turn of the object is under way.
        assert recorder.one(AlarmUpdate).turns == ()
        assert recorder.all(Call, "stop")[0].handler == "change_alarms"


# --- alarms --------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["ring", "ring_slowly", "anything"])
async def test_an_alarm_is_told_until_it_is_durably_handled(name: str) -> None:
    async with recorded() as (_, recorder):
        before = datetime.now(UTC)
        await Counter.plan("a", name, 5)
        recorder.clear()
        await anyio.sleep(7)
        delivery, turn = recorder.one(AlarmDelivery), recorder.one(Turn)
        assert (delivery.key, delivery.name, delivery.attempt) == (KEY, name, 1)
        assert abs(delivery.due_at - before - timedelta(seconds=5)) < timedelta(seconds=60)
        assert 0 <= delivery.lateness < 0.1
        assert turn.request is delivery
        assert turn.handler == ("handle_alarm" if name == "anything" else name)
        assert recorder.one(Save).turns == (turn,)
        assert recorder.end_of(delivery).error is None
        assert recorder.story[-3:] == ["stop Save", "stop Commit", "stop AlarmDelivery"]


@pytest.mark.anyio
async def test_an_alarm_that_fails_is_told_for_each_attempt() -> None:
    async with recorded() as (_, recorder):
        await Counter.plan("a", "ring_in_vain", 5)
        await anyio.sleep(20)
        first, second = recorder.all(AlarmDelivery, "start")
        assert [first.attempt, second.attempt] == [1, 2]
        assert first.lateness < 0.1
        assert 1 <= second.lateness < 2.1  # since it was due
        assert isinstance(recorder.end_of(first).error, Wrong)
        dead = recorder.one(DeadLettered)
        assert (dead.key, dead.name, dead.attempts) == (KEY, "ring_in_vain", 2)


@pytest.mark.anyio
async def test_an_alarm_that_nothing_handles_has_no_turn() -> None:
    async with recorded() as (runtime, recorder):
        await runtime.schedule_alarm(Fleeting, "a", "anything", after=1)
        await anyio.sleep(2)
        assert recorder.end_of(recorder.one(AlarmDelivery)).error is None
        assert recorder.all(Turn) == []


@pytest.mark.anyio
async def test_an_alarm_whose_row_cant_be_read_is_told_as_well() -> None:
    storage = ScriptedStorage()
    async with recorded(storage, objects=[Counter], polling_interval=5) as (_, recorder):
        assert storage._inner is not None
        before_christ = NewAlarm(due_at=-(10**17), payload=None)
        changes = AlarmChanges(changed={"ring": before_christ})
        storage._inner.commit([Commit_(KEY, None, alarms=changes)], 0)
        await anyio.sleep(6)
        delivery = recorder.all(AlarmDelivery, "exception")[0]
        assert delivery.due_at == datetime.min.replace(tzinfo=UTC)
        assert isinstance(recorder.end_of(delivery).error, InvalidAlarm)
        assert not recorder.all(Turn)


@pytest.mark.anyio
async def test_an_alarm_that_is_superseded_meanwhile_ends_with_that() -> None:
    async with recorded() as (runtime, recorder), calls() as others:
        await Counter.plan("a", "ring", 1)
        others.start(Counter.add_slowly, "a", 3)  # keeps it waiting
        await anyio.sleep(2)
        recorder.clear()
        await runtime.cancel_alarm(Counter, "a", "ring")
        await anyio.sleep(2)
        [end] = [told for told in recorder.told if isinstance(told.event, AlarmDelivery)]
        assert isinstance(end.error, AlarmSuperseded)


@pytest.mark.anyio
async def test_an_alarm_that_the_runtime_doesnt_wait_for_ends_when_it_closes() -> None:
    storage = ScriptedStorage()
    async with recorded(storage, grace_period=0) as (_, recorder):
        await Counter.plan("a", "ring_slowly", 1)
        await anyio.sleep(1.5)
        assert recorder.one(AlarmDelivery) in recorder.under_way
    assert isinstance(recorder.end_of(recorder.one(AlarmDelivery)).error, RuntimeClosed)


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_idle_object_hibernates_wakes_and_leaves() -> None:
    async with recorded() as (_, recorder):
        await Counter.add("a")
        await anyio.sleep(20)
        await Counter.add("a")
        await anyio.sleep(200)
        points = [t.event for t in recorder.told if t.what == "event"][1:]
        kinds = [type(point) for point in points]
        assert kinds == [Entered, Activated, Hibernated, Woken, Hibernated, Left]
        assert recorder.one(Left).reason == "idle"


@pytest.mark.anyio
async def test_objects_leave_for_a_reason() -> None:
    async with recorded(max_resident=2) as (runtime, recorder):
        for object_id in "abc":
            await Counter.add(object_id)
        assert (recorder.one(Left).key, recorder.one(Left).reason) == (KEY, "evicted")
        await runtime.stop(Counter, "b")
        assert [left.reason for left in recorder.all(Left)] == ["evicted", "ended"]
    assert [left.reason for left in recorder.all(Left)] == ["evicted", "ended", "closed"]


@pytest.mark.anyio
async def test_a_runtime_tells_when_it_opens_and_closes() -> None:
    async with recorded() as (runtime, recorder):
        assert recorder.story == ["event Opened"]
        assert recorder.one(Opened).runtime is runtime
    assert recorder.story == ["event Opened", "event Closed"]
    assert recorder.one(Closed).runtime is runtime


# --- instruments ---------------------------------------------------------------------------------


class Broken(Recorder):
    """Raises in one of its methods."""

    def __init__(self, method: str, error: BaseException) -> None:
        super().__init__()

        def fail(*args: object) -> None:
            raise error

        setattr(self, method, fail)


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["on_start", "on_stop", "on_exception", "on_event"])
@pytest.mark.parametrize("error", [Wrong("instrument"), KeyboardInterrupt(), SystemExit()])
async def test_an_instrument_that_raises_is_detached_and_disturbs_nobody(
    method: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    broken, others = Broken(method, error), (Recorder(), Recorder())
    storage = ScriptedStorage()
    instruments = [others[0], broken, others[1]]
    async with scripted_runtime(storage, instruments=instruments) as runtime:
        with pytest.raises(Wrong):
            await Counter.fail("a")
        assert await Counter.add("a") == 1
        assert await Counter.add_slowly("a") == 2
        await runtime.stop(Counter, "a")
        told = len(broken.told)
        assert await Counter.add("a") == 3
    assert len(broken.told) == told
    assert others[0].story != []
    for recorder in others:
        recorder.check()
    [record] = [record for record in caplog.records if "raised and was detached" in record.message]
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    assert storage.states() == {"a": {"count": 3}}


@pytest.mark.anyio
async def test_ends_are_told_in_the_opposite_order_of_beginnings() -> None:
    order: list[tuple[str, str]] = []

    class Named(Instrument):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_start(self, event: Timed) -> None:
            order.append((self.name, "start"))

        def on_stop(self, event: Timed, duration: float) -> None:
            order.append((self.name, "stop"))

    instruments = [Named("outer"), Named("inner")]
    async with DurableRuntime(":memory:", objects=[Counter], instruments=instruments):
        await Counter.value("a")
        order.clear()
        await Counter.value("a")
    nested = [("outer", "start"), ("inner", "start"), ("inner", "stop"), ("outer", "stop")]
    assert order[:2] == nested[:2]
    assert order[2:6] == nested
    assert order[6:] == nested[2:]


current: ContextVar[Timed | None] = ContextVar("current", default=None)
seen: list[Timed | None] = []


class Nesting(Instrument):
    """Keeps what is under way in a context variable, as tracers do."""

    def __init__(self) -> None:
        self.tokens: dict[Timed, Token[Timed | None]] = {}
        self.parents: dict[Timed, Timed | None] = {}

    def on_start(self, event: Timed) -> None:
        self.parents[event] = current.get()
        if isinstance(event, (Call, Turn, AlarmDelivery, Load)):
            self.tokens[event] = current.set(event)

    def on_stop(self, event: Timed, duration: float) -> None:
        if event in self.tokens:
            current.reset(self.tokens.pop(event))  # raises in another context

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        self.on_stop(event, duration)


@pytest.mark.anyio
async def test_events_start_and_end_in_one_context_which_is_the_callers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nesting, recorder = Nesting(), Recorder()
    storage = ScriptedStorage()
    async with scripted_runtime(storage, instruments=[nesting, recorder]) as runtime:
        await Counter.add_to("a", "b")
        assert current.get() is None
        async with calls() as others:
            for handler in ("add_slowly", "add", "fail", "fail_slowly", "value"):
                others.start(runtime.call, Counter, "a", handler)
        await SlowlyWelcoming.is_greeted("c")
        await Welcoming.is_greeted("d")
        await runtime.get_state(Welcoming, "d")
        await Counter.plan("a", "ring", 1)
        await Counter.plan("a", "ring_slowly", 1)
        await anyio.sleep(5)
    assert nesting.tokens == {}
    assert caplog.records == []
    for turn in recorder.all(Turn, "start"):
        parent = nesting.parents[turn]
        if turn.handler == "after_load":
            assert isinstance(parent, Call)
        else:
            assert parent is turn.request
    [inner] = [call for call in recorder.all(Call, "start") if call.key.object_id == "b"]
    outer = nesting.parents[inner]
    assert isinstance(outer, Turn)
    assert outer.handler == "add_to"
    for load in recorder.all(Load, "start"):
        assert isinstance(nesting.parents[load], Call)


def test_instruments_are_told_in_the_loops_thread_only(
    real_backend: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    recorder = Recorder()

    async def main() -> None:
        async with DurableRuntime(tmp_path / "app.db", instruments=[recorder]) as runtime:
            counter = runtime.get(Counter, "a")

            async def call() -> None:
                await counter.add()

            for _ in range(20):
                await counter.add()
            recorder.clear()
            with pytest.raises(WrongEventLoop):
                await anyio.to_thread.run_sync(lambda: anyio.run(call))
            assert recorder.told == []

    anyio.run(main, backend=real_backend[0], backend_options=real_backend[1])
    assert recorder.threads == {threading.get_ident()}
    recorder.check()


@pytest.mark.parametrize(
    ("instruments", "problem"),
    [
        ([Recorder], "instances of Instrument"),
        (["x"], "instances of Instrument"),
        (None, "list of instances of Instrument, not None"),
        (Recorder(), "list of instances of Instrument, not <"),
    ],
)
def test_what_is_no_instrument_is_refused(instruments: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        DurableRuntime(":memory:", instruments=instruments)


def test_an_instrument_is_given_once() -> None:
    recorder = Recorder()
    with pytest.raises(ValueError, match="twice"):
        DurableRuntime(":memory:", instruments=[recorder, recorder])


@pytest.mark.anyio
async def test_a_runtime_without_instruments_is_made_of_plain_parts() -> None:
    async with DurableRuntime(":memory:", objects=[Counter]) as runtime:
        await Counter.add("a")
        opened = runtime._open()
        calls = runtime._registry.calls(Counter)
        assert opened.notifier is None
        assert calls.call == calls._call
        assert opened.group_commit._ticket_type is Ticket
        assert opened.group_commit._events is None
        assert isinstance(opened.scheduler, WheelScheduler)
        assert opened.scheduler._deliverer._notifier is None


def test_an_instrument_needs_no_method() -> None:
    instrument = Instrument()
    event, point = Load(KEY), Entered(KEY)
    instrument.on_start(event)
    instrument.on_stop(event, 1.0)
    instrument.on_exception(event, 1.0, Wrong())
    instrument.on_event(point)


def test_two_events_of_a_kind_are_two() -> None:
    points: list[Point] = [Entered(KEY), Entered(KEY)]
    assert points[0] != points[1]
    assert len(set(points)) == 2
