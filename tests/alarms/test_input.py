"""Invalid alarms: errors that name the cause and the remedy, and change nothing."""

from __future__ import annotations

import math
import pickle
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import StrEnum
from typing import Any

import anyio
import attrs
import pytest
from support.ids import stable
from support.scripted import ScriptedStorage

from trio_durable import (
    DurableError,
    DurableObject,
    DurableRuntime,
    InvalidAlarm,
    InvalidObjectId,
    ObjectKey,
    RuntimeClosed,
    UnknownObjectType,
    handler,
)

pytestmark = pytest.mark.anyio

tried: list[InvalidAlarm] = []
fired: list[str] = []
arguments: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    tried.clear()
    fired.clear()
    arguments.clear()


class Ledger(DurableObject):
    entries: int = 0

    @handler
    def use(self, what: str) -> None:
        """Do what `arguments` say, catch what that raises, and go on."""
        name = arguments.get("name", "x")
        try:
            if what == "schedule":
                given = {key: each for key, each in arguments.items() if key != "name"}
                self.ctx.schedule_alarm(name, **given)
            else:
                self.ctx.cancel_alarm(name)
        except InvalidAlarm as error:
            tried.append(error)

    def handle_alarm(self, alarm: Any) -> None:
        fired.append(alarm.name)


class Nowhere(tzinfo):
    """A time zone that doesn't know its offset."""

    def utcoffset(self, when: datetime | None) -> None:
        return None

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> str:
        return "Nowhere"


@attrs.define
class Holder:
    value: Any


class Unknown:
    pass


def _endless() -> list[object]:
    endless: list[object] = []
    endless.append(endless)
    return endless


@asynccontextmanager
async def nothing_set() -> AsyncIterator[tuple[ScriptedStorage, DurableRuntime]]:
    """A runtime on which nothing has come of anything at the end."""
    storage = ScriptedStorage()
    async with DurableRuntime(storage, objects=[Ledger], runner=storage.runner) as runtime:
        yield storage, runtime
        assert storage.commits == 0
        assert await runtime.list_alarms(Ledger, "a") == []
        assert runtime.statistics().alarms_waiting == 0
        await anyio.sleep(100)
        assert fired == []


async def refused(how: str, what: str = "schedule", **given: Any) -> InvalidAlarm:
    """What comes of setting an alarm like this, after a look that it left nothing."""
    arguments.update(given)
    async with nothing_set() as (_storage, runtime):
        if how == "ctx":
            await runtime.get(Ledger, "a").use(what)
            (error,) = tried
        else:
            name = given.pop("name", "x")
            if what == "schedule":
                attempt: Awaitable[object] = runtime.schedule_alarm(Ledger, "a", name, **given)
            elif what == "cancel":
                attempt = runtime.cancel_alarm(Ledger, "a", name)
            else:
                attempt = runtime.retry_alarm(Ledger, "a", name)
            with pytest.raises(InvalidAlarm) as raised:
                await attempt
            assert runtime.count_objects() == 0
            error = raised.value
    return error


def check(error: InvalidAlarm, *words: str, name: str = "x") -> None:
    text = str(error)
    assert error.key == ObjectKey("Ledger", "a")
    assert error.name == name
    assert f"alarm {name} of Ledger('a'): " in text
    assert len(text) < 4000
    for word in words:
        assert word in text
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (InvalidAlarm, text)
    assert isinstance(error, DurableError)
    assert isinstance(error, ValueError)


SOON = datetime(2100, 1, 1, tzinfo=UTC)

hows = pytest.mark.parametrize("how", ["ctx", "runtime"])


# --- times ----------------------------------------------------------------------------------------


@hows
@pytest.mark.parametrize(
    "after",
    [-1, -1e-9, timedelta(microseconds=-1), math.nan, math.inf, -math.inf, 10**400],
    ids=repr,
)
async def test_a_delay_is_finite_and_not_negative(how: str, after: Any) -> None:
    check(await refused(how, after=after), "after must be a finite time of zero or more")


@hows
@pytest.mark.parametrize("after", ["5", True, SOON, [], object], ids=repr)
async def test_a_delay_is_a_timedelta_or_seconds(how: str, after: Any) -> None:
    check(await refused(how, after=after), "after must be a timedelta or seconds")


@hows
async def test_a_naive_instant_is_refused(how: str) -> None:
    error = await refused(how, at=datetime(2100, 1, 1))
    check(error, "at is 2100-01-01 00:00:00, without a time zone", "datetime.now(UTC)")


@hows
async def test_an_instant_in_a_zone_without_an_offset_is_refused(how: str) -> None:
    check(await refused(how, at=datetime(2100, 1, 1, tzinfo=Nowhere())), "without a time zone")


@hows
@pytest.mark.parametrize("at", ["2100-01-01T00:00:00Z", 5, SOON.date(), timedelta(1)], ids=repr)
async def test_an_instant_is_a_datetime(how: str, at: Any) -> None:
    check(await refused(how, at=at), "at must be a datetime")


@hows
async def test_one_of_after_and_at_is_given(how: str) -> None:
    check(await refused(how), "neither of after and at was given", "give one")


@hows
@pytest.mark.parametrize("after", [0, 5, timedelta(0)], ids=repr)
async def test_not_both_of_after_and_at_are_given(how: str, after: Any) -> None:
    check(await refused(how, after=after, at=SOON), "both after and at was given", "give one")


@hows
@pytest.mark.parametrize(
    "given",
    [
        {"after": timedelta.max},
        {"after": 1e12},
        {"after": 1e300},
        {"after": timedelta(days=366 * 8000)},
        {"at": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))},
        {"at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
    ],
    ids=repr,
)
async def test_a_time_outside_of_the_calendar_is_refused(how: str, given: dict[str, Any]) -> None:
    check(await refused(how, **given), "outside of the years 1 to 9999")


@hows
async def test_the_ends_of_the_calendar_can_be_stored(how: str) -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, objects=[Ledger], runner=storage.runner) as runtime:
        for name, at in (
            ("first", datetime.min.replace(tzinfo=UTC)),
            ("last", datetime.max.replace(tzinfo=UTC)),
        ):
            if how == "ctx":
                arguments.update(name=name, at=at)
                await runtime.get(Ledger, "a").use("schedule")
            else:
                await runtime.schedule_alarm(Ledger, "a", name, at=at)
        await anyio.sleep(10)
        assert tried == []
        assert fired == ["first"]
        (left,) = await runtime.list_alarms(Ledger, "a")
        assert (left.name, left.due_at) == ("last", datetime.max.replace(tzinfo=UTC))


# --- names ----------------------------------------------------------------------------------------

NAMES: list[tuple[Any, str]] = [
    ("", "it is empty"),
    ("a\0b", "it contains NUL"),
    ("x" * 513, "it takes 513 bytes"),
    ("é" * 257, "it takes 514 bytes"),
    ("\ud800", "it contains a lone surrogate"),
    ("\ud800" * 200, "it contains a lone surrogate"),
    (None, "it is of type NoneType"),
    (7, "it is of type int"),
    (b"x", "it is of type bytes"),
    (["x"], "it is of type list"),
]


@hows
@pytest.mark.parametrize(("name", "problem"), NAMES, ids=lambda each: repr(each)[:20])
@pytest.mark.parametrize("what", ["schedule", "cancel"])
async def test_what_can_not_be_a_name_is_refused(
    how: str, what: str, name: Any, problem: str
) -> None:
    given = {"after": 1} if what == "schedule" else {}
    error = await refused(how, what, name=name, **given)
    assert problem in str(error)
    assert "a name is a str of 1 to 512 bytes" in str(error)
    check(error, name=error.name)
    assert error.name == repr(name) or error.name == repr(name)[:57] + "…"
    str(error).encode()  # can be printed


@pytest.mark.parametrize(("name", "problem"), NAMES, ids=lambda each: repr(each)[:20])
async def test_what_can_not_be_a_name_can_not_be_retried(name: Any, problem: str) -> None:
    assert problem in str(await refused("runtime", "retry", name=name))


class Kind(StrEnum):
    REMINDER = "a reminder"


@hows
@pytest.mark.parametrize(
    "name", ["x" * 512, "é" * 256, "🕰", " ", "a/b'\"", Kind.REMINDER], ids=lambda each: each[:9]
)
async def test_any_other_str_is_a_name(how: str, name: str) -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, objects=[Ledger], runner=storage.runner) as runtime:
        if how == "ctx":
            arguments.update(name=name, after=1)
            await runtime.get(Ledger, "a").use("schedule")
        else:
            await runtime.schedule_alarm(Ledger, "a", name, after=1)
        (listed,) = await runtime.list_alarms(Ledger, "a")
        assert listed.name == str(name)
        assert type(listed.name) is str
        await anyio.sleep(2)
        assert fired == [name]


# --- payloads -------------------------------------------------------------------------------------


@hows
@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (math.nan, "nan"),
        ([1, math.inf], "inf"),
        ({"a": [{"b": math.nan}]}, "nan"),
        (2**64, "64"),
        (-(2**63) - 1, "64"),
        ({1: 2}, "str"),
        ("\ud800", "surrogate"),
        (["\ud800"], "surrogate"),
        ({"\ud800": 1}, "surrogate"),
        ([(1, 2)], "tuple"),
        ([{1, 2}], "set"),
        ([b"bytes"], "bytes"),
        ([SOON], "datetime"),
        ([Decimal(1)], "Decimal"),
        ([Holder(1)], "Holder"),
        (object(), "object"),
        (Unknown(), "Unknown"),
        (Unknown, "type"),
        (len, "builtin_function_or_method"),
        (Holder(Unknown()), "Unknown"),
        (Holder(math.nan), "nan"),
        (_endless(), "deep"),
        (datetime(2100, 1, 1, tzinfo=Nowhere()), "Nowhere"),
    ],
    ids=lambda each: stable(each)[:30],
)
async def test_a_payload_that_json_can_not_carry_is_refused(
    how: str, payload: object, problem: str
) -> None:
    check(await refused(how, after=1, payload=payload), "the payload can't be stored", problem)


@hows
async def test_the_place_in_the_payload_is_named(how: str) -> None:
    error = await refused(how, after=1, payload={"orders": [{"price": 1.5}, {"price": math.nan}]})
    check(error, "orders", "[1]", "price")


@hows
async def test_a_payload_over_the_limit_is_refused(how: str) -> None:
    error = await refused(how, after=1, payload="x" * 64 * 1024)
    check(error, "65,538 bytes", "65,536", "keep it in the object's state")


@hows
async def test_a_payload_at_the_limit_is_stored(how: str) -> None:
    payload = "x" * (64 * 1024 - 2)
    storage = ScriptedStorage()
    async with DurableRuntime(storage, objects=[Ledger], runner=storage.runner) as runtime:
        if how == "ctx":
            arguments.update(after=1, payload=payload)
            await runtime.get(Ledger, "a").use("schedule")
        else:
            await runtime.schedule_alarm(Ledger, "a", "x", after=1, payload=payload)
        (listed,) = await runtime.list_alarms(Ledger, "a")
        assert listed.payload == payload


# --- what bad input leaves alone ------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [{"after": -1}, {"at": datetime(2100, 1, 1)}, {}, {"after": 1, "payload": math.nan}],
    ids=repr,
)
async def test_bad_input_leaves_the_alarm_that_is_set_as_it_is(given: dict[str, Any]) -> None:
    storage = ScriptedStorage()
    async with DurableRuntime(storage, objects=[Ledger], runner=storage.runner) as runtime:
        await runtime.schedule_alarm(Ledger, "a", "x", after=10, payload="old")
        before = await runtime.list_alarms(Ledger, "a")
        arguments.update(given)
        await runtime.get(Ledger, "a").use("schedule")
        with pytest.raises(InvalidAlarm):
            await runtime.schedule_alarm(Ledger, "a", "x", **given)
        assert len(tried) == 1
        assert await runtime.list_alarms(Ledger, "a") == before
        await anyio.sleep(11)
        assert fired == ["x"]


# --- objects and types ----------------------------------------------------------------------------


@pytest.mark.parametrize("object_id", ["", "a\0", "x" * 513, None, 7])
async def test_alarms_of_impossible_objects_are_refused(object_id: Any) -> None:
    async with nothing_set() as (_storage, runtime):
        for attempt in (
            runtime.schedule_alarm(Ledger, object_id, "x", after=1),
            runtime.cancel_alarm(Ledger, object_id, "x"),
            runtime.cancel_all_alarms(Ledger, object_id),
            runtime.list_alarms(Ledger, object_id),
            runtime.retry_alarm(Ledger, object_id, "x"),
        ):
            with pytest.raises(InvalidObjectId):
                await attempt


async def test_alarms_of_unknown_types_are_refused() -> None:
    async with nothing_set() as (_storage, runtime):
        for attempt in (
            runtime.schedule_alarm("Nothing", "a", "x", after=1),
            runtime.cancel_alarm("Nothing", "a", "x"),
            runtime.cancel_all_alarms("Nothing", "a"),
            runtime.list_alarms("Nothing", "a"),
            runtime.list_dead_letters("Nothing"),
            runtime.retry_alarm("Nothing", "a", "x"),
        ):
            with pytest.raises(UnknownObjectType, match="Nothing"):
                await attempt


@pytest.mark.parametrize("limit", [0, -1, True, 1.5, "5", None])
async def test_a_page_of_dead_letters_has_room_for_one(limit: Any) -> None:
    async with nothing_set() as (_storage, runtime):
        with pytest.raises(ValueError, match="limit must be an int of 1 or more"):
            await runtime.list_dead_letters(Ledger, limit=limit)


async def test_alarms_need_an_open_runtime() -> None:
    storage = ScriptedStorage()
    runtime = DurableRuntime(storage, objects=[Ledger], runner=storage.runner)
    for when in ("not yet", "no longer"):
        for attempt in (
            runtime.schedule_alarm(Ledger, "a", "x", after=1),
            runtime.cancel_alarm(Ledger, "a", "x"),
            runtime.cancel_all_alarms(Ledger, "a"),
            runtime.list_alarms(Ledger, "a"),
            runtime.list_dead_letters(Ledger),
            runtime.retry_alarm(Ledger, "a", "x"),
        ):
            with pytest.raises(RuntimeClosed):
                await attempt
        if when == "not yet":
            async with runtime:
                pass
    assert storage.commits == 0


# --- the runtime's own options --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["polling_interval", "claim_ttl"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (0, "between a millisecond and a year"),
        (0.0, "between a millisecond and a year"),
        (timedelta(0), "between a millisecond and a year"),
        (timedelta(microseconds=999), "between a millisecond and a year"),
        (timedelta(days=367), "between a millisecond and a year"),
        (-1, "finite time of zero or more"),
        (timedelta(seconds=-1), "finite time of zero or more"),
        (math.inf, "finite time"),
        (math.nan, "finite time"),
        ("5", "a timedelta or seconds"),
        (True, "a timedelta or seconds"),
        (None, "a timedelta or seconds"),
    ],
    ids=repr,
)
def test_intervals_are_neither_nothing_nor_for_ever(name: str, value: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be .*{problem}"):
        DurableRuntime(":memory:", **{name: value})
