"""State of older and newer schemas: upgraded at load, or refused and unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import settle
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import Outcome, calls

from trio_durable import (
    DurableObject,
    DurableRuntime,
    InlineRunner,
    ObjectKey,
    Retry,
    StateDecodeError,
    StateTooNew,
    alarm,
    definition_of,
    handler,
    upgrade,
)
from trio_durable._api.registry import state_codec
from trio_durable._json.state import StateCodec

pytestmark = pytest.mark.anyio

KEY = ObjectKey("Cart", "a")

State = dict[str, Any]


class FirstCart(DurableObject, name="Cart"):
    total: float = 0.0
    items: list[str] = attrs.field(factory=list)

    @handler
    def add(self, name: str, price: float) -> None:
        self.items.append(name)
        self.total += price


class SecondCart(DurableObject, name="Cart", schema=2):
    cents: int = 0
    items: list[str] = attrs.field(factory=list)

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: State) -> State:
        state["cents"] = round(state.pop("total") * 100)
        return state

    @handler
    def add(self, name: str, cents: int) -> None:
        self.items.append(name)
        self.cents += cents


class Cart(DurableObject, name="Cart", schema=3, hibernate_after=10):
    cents: int = 0
    counts: dict[str, int] = attrs.field(factory=dict)
    note: str = "new"

    @upgrade(from_schema=1)
    @staticmethod
    def count_cents(state: State) -> State:
        log.append("count_cents")
        state["cents"] = round(state.pop("total") * 100)
        return state

    @upgrade(from_schema=2)
    @staticmethod
    def count_items(state: State) -> State:
        log.append("count_items")
        items = state.pop("items")
        return {**state, "counts": {item: items.count(item) for item in items}}

    @handler
    def add(self, name: str, cents: int) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1
        self.cents += cents

    @handler
    def spoil(self) -> None:
        self.cents = -1
        raise ZeroDivisionError

    @handler
    def look(self) -> int:
        return self.cents

    @handler(readonly=True)
    def contents(self) -> dict[str, int]:
        return self.counts

    @handler
    def wake_up_in(self, seconds: float) -> None:
        self.ctx.schedule_alarm("wake_up", after=seconds)

    @alarm
    def wake_up(self) -> None:
        self.note = f"{self.cents} cents"


log: list[str] = []
"""The upgrades that ran."""


@pytest.fixture(autouse=True)
def _empty_log() -> None:
    log.clear()


FIRST = b'{"total":1.5,"items":["apple","pear","apple"]}'
SECOND = b'{"cents":150,"items":["apple","pear","apple"],"$schema":2}'
THIRD = b'{"cents":150,"counts":{"apple":2,"pear":1},"note":"new","$as":{},"$schema":3}'
FOURTH = b'{"pence":150,"$schema":4}'

OLDER = [FIRST, SECOND]


def codec_of(cls: type[DurableObject]) -> StateCodec:
    return state_codec(definition_of(cls))


def stored(state: bytes) -> ScriptedStorage:
    storage = ScriptedStorage()
    storage.overwrite("Cart", "a", state)
    return storage


def with_upgrade(function: Callable[[State], Any]) -> type[DurableObject]:
    """A class of schema 2 whose upgrade is ``function``."""
    body = {
        "__annotations__": {"count": int, "data": Any},
        "count": 0,
        "data": None,
        "mend": upgrade(from_schema=1)(staticmethod(function)),
    }
    return type("Mended", (DurableObject,), body, schema=2)


def refusal(cls: type[DurableObject], state: bytes) -> StateDecodeError:
    with pytest.raises(StateDecodeError) as caught:
        codec_of(cls).decode(KEY, state)
    return caught.value


# --- what is written -----------------------------------------------------------------------------


def test_schema_1_is_not_written() -> None:
    assert codec_of(FirstCart).encode(KEY, FirstCart(total=1.5)) == (
        b'{"total":1.5,"items":[],"$as":{}}'
    )


def test_a_later_schema_is_written_with_the_fields() -> None:
    cart = Cart(cents=150, counts={"apple": 2, "pear": 1})
    assert codec_of(Cart).encode(KEY, cart) == THIRD


def test_a_class_without_fields_has_a_schema() -> None:
    class Nothing(DurableObject, schema=2):
        @upgrade(from_schema=1)
        @staticmethod
        def forget(state: State) -> State:
            return {}

    codec = codec_of(Nothing)
    assert codec.encode(KEY, Nothing()) == b'{"$as":{},"$schema":2}'
    assert codec.decode(KEY, b'{"$schema":2}') == Nothing()
    assert codec.decode(KEY, b'{"x":1}') == Nothing()


def test_what_validators_see_has_no_schema() -> None:
    class Positive(DurableObject, schema=2):
        count: int = attrs.field(default=1, validator=attrs.validators.gt(0))

        @upgrade(from_schema=1)
        @staticmethod
        def absolute(state: State) -> State:
            return {name: abs(value) for name, value in state.items()}

    codec = codec_of(Positive)
    assert codec.encode(KEY, Positive(count=3)) == b'{"count":3,"$as":{},"$schema":2}'
    assert codec.decode(KEY, b'{"count":-4}') == Positive(count=4)
    with pytest.raises(StateDecodeError, match="ValueError"):
        codec.decode(KEY, b'{"count":0}')


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 100)),
)
def test_the_current_schema_is_read_as_it_was_written(cents: int, counts: dict[str, int]) -> None:
    codec = codec_of(Cart)
    cart = Cart(cents=cents, counts=counts)
    state = codec.encode(KEY, cart)
    back = codec.decode(KEY, state)
    assert back == cart
    assert codec.encode(KEY, back) == state
    assert log == []


# --- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [FIRST, SECOND, THIRD])
def test_every_schema_so_far_is_read_as_the_latest(state: bytes) -> None:
    cart = codec_of(Cart).decode(KEY, state)
    assert cart == Cart(cents=150, counts={"apple": 2, "pear": 1})


def test_only_the_steps_from_the_stored_schema_run_and_in_order() -> None:
    codec = codec_of(Cart)
    ran = []
    for state in (FIRST, SECOND, THIRD):
        log.clear()
        codec.decode(KEY, state)
        ran.append(list(log))
    assert ran == [["count_cents", "count_items"], ["count_items"], []]


@given(st.data())
def test_each_step_runs_once_whatever_the_order_in_the_class(data: st.DataObject) -> None:
    schema = data.draw(st.integers(1, 6))
    at = data.draw(st.integers(1, schema))

    def step(number: int) -> Callable[[State], State]:
        def function(state: State) -> State:
            assert "$schema" not in state
            return {"trail": [*state["trail"], number]}

        return function

    body: dict[str, Any] = {
        "__annotations__": {"trail": list[int]},
        "trail": attrs.field(factory=list),
    }
    for number in data.draw(st.permutations(range(1, schema))):
        body[f"from_{number}"] = upgrade(from_schema=number)(staticmethod(step(number)))
    codec = codec_of(type("Walked", (DurableObject,), body, schema=schema))
    state = {"trail": [0]} | ({"$schema": at} if at > 1 or data.draw(st.booleans()) else {})
    walked = codec.decode(KEY, json.dumps(state).encode())
    assert walked.trail == [0, *range(at, schema)]


def test_fields_come_and_go_beside_upgrades() -> None:
    cart = codec_of(Cart).decode(KEY, b'{"total":2,"items":[],"gone":[1]}')
    assert cart == Cart(cents=200, note="new")


def test_what_an_upgrade_puts_into_several_objects_is_not_shared() -> None:
    common = [1]
    codec = codec_of(with_upgrade(lambda state: {"data": common}))
    first, second = codec.decode(KEY, b"{}"), codec.decode(KEY, b"{}")
    first.data.append(2)
    assert second.data == common == [1]


def test_an_upgrade_may_change_what_it_gets_without_returning_that() -> None:
    def function(state: State) -> State:
        count = state.pop("count")
        state["data"] = "lost"
        return {"count": count + 1}

    state = b'{"count":1}'
    codec = codec_of(with_upgrade(function))
    assert [codec.decode(KEY, state).count for _ in range(2)] == [2, 2]


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "state", "schema"), [(FirstCart, SECOND, 2), (SecondCart, THIRD, 3), (Cart, FOURTH, 4)]
)
def test_a_schema_that_the_code_does_not_know(
    cls: type[DurableObject], state: bytes, schema: int
) -> None:
    error = refusal(cls, state)
    assert isinstance(error, StateTooNew)
    assert (error.key, error.stored_schema, error.schema) == (KEY, schema, schema - 1)
    assert str(error) == (
        f"stored state of Cart('a') has schema {schema}, and this code knows it up to schema "
        f"{schema - 1}; the row was left untouched: upgrade the code"
    )
    assert log == []


def test_a_schema_that_only_a_broken_row_can_have() -> None:
    for number in ("0", "-1", "true", "2.0", '"2"', "null", "[]"):
        for cls in (FirstCart, Cart):
            error = refusal(cls, b'{"$schema":%s}' % number.encode())
            assert not isinstance(error, StateTooNew)
            assert error.place == "$.$schema"
            assert "is not the number of a schema" in error.problem
    assert log == []


def test_an_upgrade_that_raises() -> None:
    def function(state: State) -> State:
        return {"count": state["number"]}

    error = refusal(with_upgrade(function), b'{"count":1}')
    assert (error.key, error.field, error.place) == (KEY, "", "$")
    assert error.problem == "the upgrade mend from schema 1 raised KeyError: 'number'"
    assert isinstance(error.__cause__, KeyError)


def test_an_upgrade_that_raises_without_a_word() -> None:
    def function(state: State) -> State:
        raise AssertionError

    error = refusal(with_upgrade(function), b"{}")
    assert error.problem == "the upgrade mend from schema 1 raised AssertionError"


def test_an_upgrade_that_raises_what_can_not_be_shown() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise LookupError

    def function(state: State) -> State:
        raise Mute

    error = refusal(with_upgrade(function), b"{}")
    assert error.problem == "the upgrade mend from schema 1 raised Mute"


@pytest.mark.parametrize("returned", [None, [], "x", 1, attrs.make_class("Other", [])()])
def test_an_upgrade_that_returns_no_dict(returned: object) -> None:
    error = refusal(with_upgrade(lambda state: returned), b"{}")
    assert "the upgrade mend from schema 1 returned" in error.problem
    assert error.problem.endswith("not a dict")


@pytest.mark.parametrize(
    ("returned", "place"),
    [
        ({"data": {1, 2}}, "$['data']"),
        ({"data": [0, (1, 2)]}, "$['data'][1]"),
        ({"data": float("nan")}, "$['data']"),
        ({"data": b"x"}, "$['data']"),
        ({"data": {1: 2}}, "$['data']"),
        ({"data": 2**64}, "$"),
        ({"data": "\ud800"}, "$"),
        ({1: 2}, "$"),
    ],
)
def test_an_upgrade_that_returns_what_json_does_not_have(returned: State, place: str) -> None:
    error = refusal(with_upgrade(lambda state: returned), b"{}")
    assert error.problem.startswith(
        "the upgrade mend from schema 1 returned something that isn't JSON: "
    )
    assert error.place == place


def test_an_upgrade_that_returns_a_dict_in_itself() -> None:
    def function(state: State) -> State:
        state["data"] = state
        return state

    assert "contains itself" in refusal(with_upgrade(function), b"{}").problem


def test_the_step_that_failed_is_named() -> None:
    error = refusal(Cart, b'{"total":1}')
    assert error.problem == "the upgrade count_items from schema 2 raised KeyError: 'items'"
    assert log == ["count_cents", "count_items"]


def test_an_upgrade_that_makes_what_no_field_takes() -> None:
    error = refusal(with_upgrade(lambda state: {"count": "many"}), b"{}")
    assert (error.field, error.place) == ("count", "$.count")
    assert error.problem.endswith("(upgraded from schema 1)")
    error = refusal(with_upgrade(lambda state: state), b'{"count":"many","$schema":2}')
    assert "upgraded" not in error.problem


# --- objects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", OLDER)
async def test_loading_writes_nothing(state: bytes) -> None:
    storage = stored(state)
    async with scripted_runtime(storage) as runtime:
        cart = runtime.get(Cart, "a")
        await runtime.ensure_started(Cart, "a")
        assert await cart.look() == 150
        assert await cart.contents() == {"apple": 2, "pear": 1}
        with pytest.raises(ZeroDivisionError):
            await cart.spoil()
        assert await cart.look() == 150
        assert await runtime.exists(Cart, "a")
        await runtime.stop(Cart, "a")
    assert storage.batches == []
    assert storage.rows() == {"a": state}


@pytest.mark.parametrize("state", OLDER)
async def test_what_was_upgraded_is_written_with_the_next_change(state: bytes) -> None:
    storage = stored(state)
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Cart, "a").add("pear", 50)
    assert storage.commits == 1
    assert storage.states() == {
        "a": {"cents": 200, "counts": {"apple": 2, "pear": 2}, "note": "new", "$schema": 3}
    }


async def test_new_objects_begin_at_the_schema_of_their_class() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Cart, "a").add("pear", 50)
        assert await runtime.get(Cart, "b").look() == 0
    assert storage.rows().keys() == {"a"}
    assert storage.states()["a"]["$schema"] == 3
    assert log == []


async def test_upgrades_run_once_in_an_activation() -> None:
    async with scripted_runtime(stored(FIRST)) as runtime:
        cart = runtime.get(Cart, "a")
        assert await cart.look() == 150
        await anyio.sleep(15)
        info = runtime.whereis(Cart, "a")
        assert info is not None
        assert await cart.look() == 150
        with pytest.raises(ZeroDivisionError):
            await cart.spoil()
        assert await cart.look() == 150
        assert (await runtime.get_state(Cart, "a")).cents == 150
    assert log == ["count_cents", "count_items"]


async def test_after_load_sees_upgraded_state() -> None:
    class Greeted(DurableObject, name="Cart", schema=2):
        cents: int = 0
        seen: int | None = None

        @upgrade(from_schema=1)
        @staticmethod
        def count_cents(state: State) -> State:
            return {"cents": round(state["total"] * 100)}

        def after_load(self) -> None:
            self.seen = self.cents

        @handler
        def look(self) -> int | None:
            return self.seen

    storage = stored(FIRST)
    async with scripted_runtime(storage) as runtime:
        assert await runtime.get(Greeted, "a").look() == 150
    assert storage.states() == {"a": {"cents": 150, "seen": 150, "$schema": 2}}


async def test_alarms_of_objects_in_an_older_schema() -> None:
    storage = stored(FIRST)
    async with scripted_runtime(storage) as runtime:
        await runtime.get(Cart, "a").wake_up_in(60)
        assert storage.rows() == {"a": FIRST}
        await runtime.stop(Cart, "a")
        await anyio.sleep(70)
        assert storage.states()["a"]["note"] == "150 cents"


async def test_get_state_of_an_object_that_was_never_called() -> None:
    storage = stored(FIRST)
    async with scripted_runtime(storage) as runtime:
        await runtime.ensure_started(Cart, "a")
        state = await runtime.get_state(Cart, "a")
        assert state == Cart(cents=150, counts={"apple": 2, "pear": 1})
    assert storage.batches == []


async def test_put_state_writes_the_schema_even_if_the_fields_are_the_same() -> None:
    storage = stored(b'{"cents":150,"counts":{},"items":[],"note":"new","$schema":2}')
    async with scripted_runtime(storage) as runtime:
        await runtime.put_state(Cart, "a", Cart(cents=150))
    assert storage.states() == {"a": {"cents": 150, "counts": {}, "note": "new", "$schema": 3}}
    assert log == []


async def test_state_lives_through_the_releases_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"

    def opened(cls: type[DurableObject]) -> DurableRuntime:
        return DurableRuntime(path, objects=[cls], runner=InlineRunner)

    async with opened(FirstCart) as runtime:
        await runtime.get(FirstCart, "a").add("apple", 1.5)
        await runtime.get(FirstCart, "b").add("pear", 2)
    async with opened(SecondCart) as runtime:
        await runtime.get(SecondCart, "a").add("pear", 50)
    async with opened(Cart) as runtime:
        assert await runtime.get(Cart, "a").contents() == {"apple": 1, "pear": 1}
        assert await runtime.get(Cart, "b").look() == 200
        await runtime.get(Cart, "a").add("plum", 1)
    # Back to the release before: what it can't read it doesn't touch, the rest it serves.
    async with opened(SecondCart) as runtime:
        with pytest.raises(StateTooNew):
            await runtime.get(SecondCart, "a").add("pear", 50)
        await runtime.get(SecondCart, "b").add("pear", 50)
    async with opened(Cart) as runtime:
        assert await runtime.get(Cart, "a").contents() == {"apple": 1, "pear": 1, "plum": 1}
        assert await runtime.get(Cart, "b").contents() == {"pear": 2}


@pytest.mark.parametrize(
    ("state", "kind", "ran"),
    [(FOURTH, StateTooNew, []), (b'{"items":[]}', StateDecodeError, ["count_cents"])],
)
async def test_state_that_can_not_be_upgraded_is_refused_to_all_and_left_as_it_is(
    state: bytes, kind: type[StateDecodeError], ran: list[str]
) -> None:
    storage = stored(state)
    async with scripted_runtime(storage) as runtime, calls() as group:
        cart = runtime.get(Cart, "a")
        with storage.held("reader"):
            outcomes: list[Outcome[object]] = [
                group.start(cart.look),
                group.start(cart.add, "pear", 50),
                group.start(runtime.ensure_started, Cart, "a"),
            ]
            await settle()
        await settle()
        for outcome in outcomes:
            assert type(outcome.error) is kind
            assert outcome.error.key == KEY
            # With the line in the upgrade that raised.
            assert isinstance(outcome.error.__cause__, KeyError) == bool(ran)
        assert log == ran
        with pytest.raises(kind):
            await cart.look()
        assert storage.rows() == {"a": state}
        assert storage.batches == []
        # Whoever means to replace it can.
        await runtime.put_state(Cart, "a", Cart(cents=5))
        assert await cart.look() == 5


async def test_an_alarm_leaves_a_state_that_is_too_new_as_it_is() -> None:
    storage = stored(FOURTH)
    async with scripted_runtime(storage) as runtime:
        await runtime.schedule_alarm(Cart, "a", "wake_up", after=10)
        await anyio.sleep(30)
        (found,) = await runtime.list_alarms(Cart, "a")
        assert "has schema 4" in (found.last_error or "")
        assert storage.rows() == {"a": FOURTH}


class Impatient(DurableObject):
    """Of a release that knows one schema."""

    @alarm(retry=Retry(initial=1, maximum=1, attempts=1))
    def wake_up(self) -> None: ...


async def test_an_older_release_makes_no_dead_letters_of_what_it_can_not_read() -> None:
    storage = ScriptedStorage()
    storage.overwrite("Impatient", "a", b'{"$schema":2}')
    async with scripted_runtime(storage) as runtime:
        await runtime.schedule_alarm(Impatient, "a", "wake_up", after=1)
        await anyio.sleep(60)
        assert await runtime.list_dead_letters(Impatient) == []
        (found,) = await runtime.list_alarms(Impatient, "a")
        assert found.attempt == 1
