"""Defaults: shared or not, and saved if another reader wouldn't get them."""

from __future__ import annotations

import enum
import itertools
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import anyio
import anyio.lowlevel
import attrs
import pytest
from support.clock import settle
from support.codecs import Item, Point, Row
from support.runtimes import scripted_runtime
from support.scripted import ScriptedStorage
from support.tasks import calls

from trio_durable import DurableObject, handler
from trio_durable._api.durable_object import state_form
from trio_durable._json.defaults import is_immutable, is_pure
from trio_durable._json.lookup import Forms

pytestmark = pytest.mark.anyio

numbers = itertools.count(1)


class Size(enum.Enum):
    SMALL = 1


class Mutable(NamedTuple):
    items: list[int]


@attrs.define
class Settings:
    size: int = 1
    tags: list[str] = attrs.field(factory=list)


@attrs.define
class Numbered:
    number: int = attrs.field(factory=lambda: next(numbers))


@attrs.define
class Posted:
    size: int = 1

    def __attrs_post_init__(self) -> None:
        self.size = next(numbers)


@attrs.define
class Required:
    size: int


@attrs.define
class TakesSelf:
    size: int = 1
    double: int = attrs.field(default=attrs.Factory(lambda self: 2 * self.size, takes_self=True))


class Called(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)


@attrs.define
class WithMeta(metaclass=Called):
    size: int = 1


# --- what is shared ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, 1, 1.5, "a", b"a", Decimal(1), UUID(int=1), datetime(2024, 1, 1, tzinfo=UTC), Size.SMALL,
     (1, ("a", None)), frozenset({1}), Row(1)],
    ids=repr,
)  # fmt: skip
def test_immutable_values(value: Any) -> None:
    assert is_immutable(value)


@pytest.mark.parametrize(
    "value",
    [[], {}, set(), deque(), bytearray(), ([],), (1, ({},)), Mutable([]), Item(""), Point(1)],
    ids=repr,
)
def test_mutable_values(value: Any) -> None:
    assert not is_immutable(value)


@attrs.define
class Shares:
    parts: tuple[int, ...] = tuple(range(1000, 1003))
    item: Settings = Settings()  # noqa: RUF009
    mutable: Mutable = Mutable([1])  # noqa: RUF009


def test_immutable_defaults_are_shared_and_others_are_not() -> None:
    form = Forms().of(Shares)
    one, other = form.read({}, []), form.read({}, [])
    assert one.parts is other.parts
    assert one.item == other.item
    assert one.item is not other.item
    one.item.tags.append("a")
    one.mutable.items.append(2)
    third = form.read({}, [])
    assert (third.item, third.mutable) == (Settings(), Mutable([1]))


COMMON = [1]


def common(_: object) -> list[int]:
    return COMMON


@attrs.define
class Common:
    made: list[int] = attrs.field(factory=lambda: COMMON)
    converted: list[int] = attrs.field(default=(), converter=common)


def test_an_object_that_a_function_returns_each_time_is_copied() -> None:
    one, other = Forms().of(Common).read({}, []), Forms().of(Common).read({}, [])
    lists = [one.made, one.converted, other.made, other.converted]
    assert lists == [COMMON] * 4
    assert len({id(each) for each in (*lists, COMMON)}) == 5


# --- factories -----------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [list, dict, set, deque, int, str, Settings, Required])
def test_pure_factories(factory: Any) -> None:
    assert is_pure(factory)


@pytest.mark.parametrize(
    "factory",
    [uuid4, lambda: 1, datetime.now, Numbered, Posted, TakesSelf, WithMeta, [].copy],
)
def test_factories_that_may_make_another_value_each_time(factory: Any) -> None:
    assert not is_pure(factory)


class Mixed(DurableObject):
    pure: list[int] = attrs.field(factory=list)
    other: UUID = attrs.field(factory=uuid4)
    numbered: Numbered = attrs.field(factory=Numbered)


def test_fields_that_took_a_value_of_their_own_are_noted() -> None:
    form = state_form(Mixed)
    taken: list[str] = []
    form.read({}, taken)
    assert taken == ["other", "numbered"]
    taken.clear()
    form.read(form.write(form.read({}, []), []), taken)
    assert taken == []


# --- saved ---------------------------------------------------------------------------------------


class Ticket(DurableObject, name="Ticket"):
    code: UUID = attrs.field(factory=uuid4)
    uses: int = 0

    @handler(readonly=True)
    def look(self) -> UUID:
        return self.code

    @handler
    def touch(self) -> UUID:
        return self.code


class Earlier(DurableObject, name="Ticket"):
    uses: int = 0

    @handler
    def use(self) -> None:
        self.uses += 1


Call = Callable[[Any], Any]


@pytest.mark.parametrize("call", [lambda ticket: ticket.look(), lambda ticket: ticket.touch()])
@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_value_that_a_caller_has_seen_is_the_same_after_a_restart(
    call: Call, is_stored: bool
) -> None:
    storage = ScriptedStorage()
    if is_stored:
        async with scripted_runtime(storage) as runtime:
            await runtime.get(Earlier, "a").use()
    async with scripted_runtime(storage) as runtime:
        seen = await call(runtime.get(Ticket, "a"))
        assert await runtime.get(Ticket, "a").look() == seen
        assert storage.states()["a"] == {"code": str(seen), "uses": int(is_stored)}
        commits = storage.commits
        await runtime.get(Ticket, "a").look()
        assert storage.commits == commits
    async with scripted_runtime(storage) as runtime:
        assert await runtime.get(Ticket, "a").look() == seen


async def test_the_reply_waits_until_the_value_is_durable() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime, calls() as group:
        ticket = runtime.get(Ticket, "a")
        with storage.held("writer"):
            first = group.start(ticket.look)
            second = group.start(ticket.look)
            await settle()
            assert not first.done
            assert not second.done
        await settle()
        assert first.value == second.value
        assert storage.states()["a"]["code"] == str(first.value)
        await anyio.lowlevel.checkpoint()


class Pure(DurableObject):
    items: list[int] = attrs.field(factory=list)

    @handler(readonly=True)
    def look(self) -> list[int]:
        return self.items


async def test_pure_defaults_are_not_saved() -> None:
    storage = ScriptedStorage()
    async with scripted_runtime(storage) as runtime:
        assert await runtime.get(Pure, "a").look() == []
    assert storage.rows() == {}
