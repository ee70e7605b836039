"""One turn of a detached instance: its outcome, and the rules that it must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import pytest

from trio_durable import (
    ArgumentError,
    DurableError,
    DurableObject,
    DurableRuntime,
    InvalidAlarm,
    InvalidObjectId,
    NoRuntime,
    NotInTurn,
    ReadonlyViolation,
    ReplyError,
    RuntimeClosed,
    StateEncodeError,
    UnknownHandler,
    current_runtime,
    handler,
)
from trio_durable.testing import perform_alarm_handler, perform_handler

from .objects import Plain, Tally, scripts

pytestmark = pytest.mark.anyio

Does = Callable[[Callable[[Any], Any]], str]


@pytest.fixture
def does() -> Iterator[Does]:
    """Puts a script in place and names it."""

    def put(script: Callable[[Any], Any]) -> str:
        scripts["script"] = script
        return "script"

    yield put
    scripts.clear()


async def test_the_record_has_result_and_state_and_the_instance_stays() -> None:
    before = Tally(count=2)
    turn = await perform_handler(before, "add", 3)
    assert turn.result == 5
    assert turn.state == Tally(count=5)
    assert before == Tally(count=2)
    assert (await perform_handler(turn.state, "add", by=1)).state.count == 6


async def test_async_handlers_are_awaited_and_their_alarms_follow_the_clock() -> None:
    turn = await perform_handler(Tally(), "add_slowly", 2)
    assert (turn.result, turn.state.count) == (2, 2)
    assert turn.alarms["later"].due_at - turn.began_at == timedelta(seconds=61)


async def test_staged_alarms_are_recorded(does: Does) -> None:
    @attrs.frozen
    class Note:
        text: str

    def stage(self: Tally) -> None:
        self.ctx.schedule_alarm("gone", after=1)
        self.ctx.cancel_all_alarms()
        self.ctx.schedule_alarm("once", after=1)
        self.ctx.schedule_alarm("note", after=timedelta(minutes=2), payload=Note("x"))
        self.ctx.cancel_alarm("once")

    turn = await perform_handler(Tally(), "do", does(stage))
    assert list(turn.alarms) == ["note"]
    note = turn.alarms["note"]
    assert note.due_at - turn.began_at == timedelta(minutes=2)
    assert (note.payload, note.attempt, note.key.object_id) == ({"text": "x"}, 1, "test")
    assert turn.cancelled == {"once"}
    assert turn.cancelled_all
    assert not turn.deleted
    quiet = await perform_handler(Tally(), "add")
    assert (quiet.alarms, quiet.cancelled, quiet.cancelled_all) == ({}, frozenset(), False)


async def test_the_record_is_frozen() -> None:
    turn = await perform_handler(Tally(), "add")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        turn.commits = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        turn.alarms["x"] = None  # type: ignore[index]


async def test_a_deleted_object_starts_from_its_defaults(does: Does) -> None:
    def delete(self: Tally) -> None:
        self.ctx.delete()
        self.count = 9
        self.ctx.schedule_alarm("ring", after=1)

    turn = await perform_handler(Tally(count=3), "do", does(delete))
    assert turn.deleted
    assert turn.cancelled_all
    assert list(turn.alarms) == ["ring"]
    assert turn.state == Tally()


async def test_commits_are_counted_and_what_they_carry_is_kept(does: Does) -> None:
    async def work(self: Tally) -> None:
        self.count = 1
        self.ctx.schedule_alarm("ring", after=1)
        await self.ctx.commit()
        self.count = 2
        self.ctx.cancel_alarm("other")
        await self.ctx.commit()

    turn = await perform_handler(Tally(), "do_slowly", does(work))
    assert (turn.commits, turn.state.count) == (2, 2)
    assert list(turn.alarms) == ["ring"]
    assert turn.cancelled == {"other"}

    async def delete(self: Tally) -> None:
        self.ctx.delete()
        await self.ctx.commit()
        self.count = 7

    turn = await perform_handler(Tally(count=1), "do_slowly", does(delete))
    assert (turn.deleted, turn.state, turn.commits) == (True, Tally(), 1)


async def test_a_handler_that_raises_changes_nothing(does: Does) -> None:
    def fail(self: Tally) -> None:
        self.log.append("lost")
        raise LookupError("on purpose")

    before = Tally(log=["kept"])
    with pytest.raises(LookupError, match="on purpose") as caught:
        await perform_handler(before, "do", does(fail))
    assert before == Tally(log=["kept"])
    assert caught.value.__notes__ == ["in do on testing.Tally('test'); its turn was rolled back"]


async def test_arguments_state_and_result_are_passed_by_value() -> None:
    given = ["a"]
    turn = await perform_handler(Tally(), "keep", given)
    assert turn.result == turn.state.log == given
    assert turn.result is not turn.state.log
    assert turn.state.log is not given
    kept = Tally(log=given)
    assert (await perform_handler(kept, "entries")).result is not given


async def test_a_live_instance_becomes_detached_when_its_turn_ends(does: Does) -> None:
    kept: list[Any] = []
    turn = await perform_handler(Tally(), "do", does(lambda self: kept.append((self, self.ctx))))
    instance, ctx = kept[0]
    for end in (lambda: instance.ctx, lambda: turn.state.ctx, lambda: ctx.cancel_alarm("x")):
        with pytest.raises(NotInTurn):
            end()


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (lambda self: self.log.append("x"), "changed the object's state"),
        (lambda self: self.ctx.cancel_alarm("x"), "staged effects through self.ctx"),
    ],
)
async def test_readonly_handlers_change_nothing(
    does: Does, script: Callable[[Tally], None], problem: str
) -> None:
    with pytest.raises(ReadonlyViolation, match=f"look on .* {problem}"):
        await perform_handler(Tally(), "look", does(script))


async def test_what_a_runtime_refuses_is_refused(does: Does) -> None:
    with pytest.raises(UnknownHandler, match=r"testing\.Tally has no handler 'ad' \(it has: add,"):
        await perform_handler(Tally(), "ad")
    with pytest.raises(ArgumentError, match="too many positional arguments; it takes"):
        await perform_handler(Tally(), "add", 1, 2)
    with pytest.raises(ArgumentError, match="can't be passed by value: a generator"):
        await perform_handler(Tally(), "keep", (x for x in "a"))
    with pytest.raises(ReplyError, match="a generator can't be passed by value"):
        await perform_handler(Tally(), "do", does(lambda self: (x for x in "a")))
    with pytest.raises(StateEncodeError, match="field count"):
        await perform_handler(Tally(), "do", does(lambda self: setattr(self, "count", "1")))
    with pytest.raises(StateEncodeError, match="field other: it is not declared"):
        await perform_handler(Tally(), "do", does(lambda self: setattr(self, "other", 1)))
    with pytest.raises(StateEncodeError, match="field count"):
        await perform_handler(Tally(count="1"), "add")  # type: ignore[arg-type]
    with pytest.raises(InvalidAlarm, match="neither of after and at"):
        await perform_handler(Tally(), "do", does(lambda self: self.ctx.schedule_alarm("x")))
    for wrong in (Tally, "Tally", None):
        with pytest.raises(
            TypeError, match="must be a detached instance of a durable object class"
        ):
            await perform_handler(wrong, "add")  # type: ignore[type-var]


async def test_there_is_no_runtime(does: Does) -> None:
    with pytest.raises(RuntimeClosed, match=r"Tally\('test'\) is performed without a runtime"):
        await perform_handler(Tally(), "do", does(lambda self: self.ctx.runtime))


class Caller(DurableObject):
    @handler
    async def call(self, how: str, raises: bool) -> str:
        try:
            match how:
                case "handle":
                    await self.ctx.runtime.get(Tally, "a").add()
                case "class":
                    await Tally.add("a")
                case _:
                    current_runtime()
        except DurableError:
            if raises:
                raise KeyError("something else") from None
            return "swallowed"
        return "called"

    @handler
    def look(self) -> str:
        try:
            return str(self.ctx.runtime)
        except DurableError:
            return "swallowed"


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize(
    ("how", "error"), [("handle", RuntimeClosed), ("class", NoRuntime), ("current", NoRuntime)]
)
async def test_a_handler_can_not_hide_that_there_is_no_runtime(
    how: str, error: type[Exception], raises: bool
) -> None:
    with pytest.raises(error):
        await perform_handler(Caller(), "call", how, raises)
    with pytest.raises(RuntimeClosed):
        await perform_handler(Caller(), "look")


async def test_a_handler_may_call_objects_of_the_current_runtime() -> None:
    async with DurableRuntime(":memory:"):
        assert (await perform_handler(Caller(), "call", "class", False)).result == "called"


async def test_the_id_can_be_given() -> None:
    assert (await perform_handler(Tally(), "link")).result == "test to "
    assert (await perform_handler(Tally(), "link", "b", object_id="a")).result == "a to b"
    with pytest.raises(TypeError, match="link takes a parameter of the same name"):
        await perform_handler(Tally(), "link", object_id="a")
    with pytest.raises(InvalidObjectId, match="it is empty"):
        await perform_handler(Tally(), "add", object_id="")


async def test_an_alarms_handler_sees_its_alarm(does: Does) -> None:
    seen = []
    scripts["wake"] = lambda self: seen.append(self.ctx.alarm)
    due_at = datetime(2031, 5, 1, tzinfo=UTC)
    turn = await perform_alarm_handler(
        Tally(), "wake", payload={"a": [1, 2]}, due_at=due_at, attempt=3, object_id="x"
    )
    assert turn.state.log == ["wake"]
    [alarm] = seen
    assert (alarm.name, alarm.payload, alarm.due_at) == ("wake", {"a": [1, 2]}, due_at)
    assert (alarm.attempt, alarm.key.object_id) == (3, "x")

    seen.clear()
    turn = await perform_alarm_handler(Tally(), "wake")
    assert (seen[0].due_at, seen[0].payload, seen[0].attempt) == (turn.began_at, None, 1)
    assert (turn.alarms, turn.cancelled) == ({}, frozenset())


async def test_alarm_methods_are_performed_and_may_set_themselves_again() -> None:
    turn = await perform_alarm_handler(Tally(), "repeat")
    assert turn.state.count == 1
    assert turn.alarms["repeat"].due_at == turn.began_at + timedelta(hours=1)
    before = Tally()
    with pytest.raises(KeyError, match="on purpose"):
        await perform_alarm_handler(before, "fail")
    assert before == Tally()


async def test_an_alarm_that_cant_be_is_refused() -> None:
    with pytest.raises(InvalidAlarm, match=r"it has no handler \(@alarm methods: ring; no handle"):
        await perform_alarm_handler(Plain(), "rong")
    with pytest.raises(InvalidAlarm, match="without a time zone"):
        await perform_alarm_handler(Plain(), "ring", due_at=datetime(2030, 1, 1))
    with pytest.raises(InvalidAlarm, match="the payload can't be stored"):
        await perform_alarm_handler(Plain(), "ring", payload=object())
    for attempt in (0, True, "1"):
        with pytest.raises(ValueError, match="attempt must be an int of 1 or more"):
            await perform_alarm_handler(Plain(), "ring", attempt=attempt)  # type: ignore[arg-type]
