"""A page of an application: generics, overrides, protocols, handles as values, alarms, tenants."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, Generic, ParamSpec, Protocol, TypedDict, TypeVar, Unpack, assert_type

import attrs
import trio

from trio_durable import (
    BoundHandler,
    BoundSyncHandler,
    DurableObject,
    DurableRuntime,
    Objects,
    Retry,
    alarm,
    handler,
)
from trio_durable.testing import assert_alarm_scheduled, perform_handler

P = ParamSpec("P")
T = TypeVar("T")
N = TypeVar("N", bound=float)


# --- generic handlers, and others with special signatures ----------------------------------------


class Options(TypedDict, total=False):
    colour: str
    size: int


class Tools(DurableObject):
    calls: int = 0

    @handler
    def echo(self, value: T) -> T:
        return value

    @handler(readonly=True)
    async def echo_later(self, value: T) -> T:
        return value

    @handler
    def last(self, values: list[T]) -> T:
        return values[-1]

    @handler
    def first_or(self, values: list[T], *, default: T | None = None) -> T | None:
        return values[0] if values else default

    @handler
    def pair(self, left: T, right: N) -> tuple[T, N]:
        return left, right

    @handler(readonly=True)
    def larger(self, left: N, right: N) -> N:
        return max(left, right)

    @handler
    def take(self, values: list[T], value: T) -> None:
        values.append(value)
        self.calls += 1

    @handler
    def tag(self, **tags: str) -> int:
        return len(tags)

    @handler
    async def tag_later(self, first: int, /, *more: int, last: str = "", **tags: str) -> int:
        return first + sum(more) + len(last) + len(tags)

    @handler
    def tag_this(this, /, **tags: str) -> int:  # noqa: N805
        return len(tags)

    @handler
    def paint(self, **options: Unpack[Options]) -> str:
        return options.get("colour", "black")

    @handler
    def load(self, key: int) -> Any:
        return key

    @handler
    async def load_later(self, key: int) -> Any:
        return key

    @handler(readonly=True)
    def documents(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        return [query]

    @handler
    async def use_all(self) -> str:
        # On a live instance each is awaited, and a def has its plain function, too.
        assert_type(await self.echo("x"), str)
        assert_type(self.echo.function("x"), str)
        assert_type(self.last.function([1, 2]), int)
        assert_type(await self.echo_later(3), int)
        assert_type(self.load.function(1), Any)
        assert_type(await self.load(1), Any)
        assert_type(self.tag.function(colour="red"), int)
        return self.echo.function("done")


async def use_tools(runtime: DurableRuntime) -> None:
    tools = runtime.get(Tools, "t")
    assert_type(await tools.echo(3), int)
    assert_type(await tools.echo(value="x"), str)
    assert_type(await tools.echo_later([1]), list[int])
    assert_type(await tools.last(["a", "b"]), str)
    assert_type(await tools.first_or([1], default=2), int | None)
    assert_type(await tools.pair("a", 1), tuple[str, int])
    assert_type(await tools.larger(1, 2), int)
    await tools.take(["a"], "b")
    assert_type(await tools.tag(colour="red", size="3"), int)
    assert_type(await tools.tag_later(1, 2, last="x", more_tags="y"), int)
    assert_type(await tools.tag_this(colour="red"), int)
    assert_type(await tools.paint(colour="red", size=3), str)
    assert_type(await tools.load(1), Any)
    assert_type(await tools.load_later(1), Any)
    assert_type(await tools.documents({"a": [1]}), list[dict[str, Any]])
    assert_type(await Tools.echo("t", 3), int)
    assert_type(await Tools.echo_later("t", "x"), str)
    assert_type(await Tools.last("t", [1.5]), float)
    assert_type(await Tools.tag("t", colour="red"), int)
    assert_type(await Tools.load("t", 1), Any)
    assert_type(await tools.use_all(), str)


# --- generic bases -------------------------------------------------------------------------------


class Repository(DurableObject, Generic[T]):
    items: dict[str, T] = attrs.field(factory=dict[str, T])

    @handler
    def put(self, key: str, value: T) -> T | None:
        old = self.items.get(key)
        self.items[key] = value
        return old

    @handler(readonly=True)
    async def all(self) -> list[T]:
        return list(self.items.values())

    @handler
    def change(self, key: str, value: T, note: N) -> tuple[T, N]:
        self.items[key] = value
        return value, note


class Numbers(Repository[int]):
    @handler(readonly=True)
    def total(self) -> int:
        return sum(self.items.values())


async def use_repositories(runtime: DurableRuntime) -> None:
    numbers = runtime.get(Numbers, "n")
    assert_type(numbers, Numbers)
    assert_type(await numbers.put("a", 1), int | None)
    assert_type(await numbers.all(), list[int])
    assert_type(await numbers.change("a", 1, 2.5), tuple[int, float])
    assert_type(await Numbers.put("n", "a", 1), int | None)
    assert_type(await Numbers.all("n"), list[int])
    assert_type((await runtime.get_state(Numbers, "n")).items, dict[str, int])


# --- overriding ----------------------------------------------------------------------------------


class Account(DurableObject, abc.ABC):
    cents: int = 0

    @handler
    def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents

    @handler
    async def settle(self, note: str) -> float:
        return self.cents / 100

    @handler(readonly=True)
    @abc.abstractmethod
    def limit(self) -> float: ...

    @handler(readonly=True)
    @abc.abstractmethod
    async def owner(self) -> str | None: ...


class Plain(Account):
    @handler(readonly=True)
    def limit(self) -> int:
        return 0

    @handler(readonly=True)
    async def owner(self) -> str:
        return "ada"


class More(Plain):
    """Overrides with more parameters than the base has."""

    @handler
    def add(self, cents: int, times: int = 1, *, note: str = "", **tags: str) -> int:
        return super().add.function(cents * times)

    @handler
    async def settle(self, note: str = "", *notes: str) -> int:
        return round(await super().settle(note))


class Wider(Plain):
    """Overrides with wider parameters, and a narrower result."""

    @handler
    def add(self, cents: int | str) -> bool:
        return bool(super().add.function(int(cents)))

    @handler
    async def settle(self, note: object) -> int:
        return self.cents


async def use_accounts(runtime: DurableRuntime) -> None:
    more, wider = runtime.get(More, "m"), runtime.get(Wider, "w")
    assert_type(await more.add(1, 2, note="x", colour="red"), int)
    assert_type(await wider.add("1"), bool)
    assert_type(await more.settle("a", "b"), int)
    assert_type(await wider.settle(None), int)
    accounts: list[Account] = [more, wider, runtime.get(Plain, "p")]
    for account in accounts:
        assert_type(await account.add(1), int)
        assert_type(await account.limit(), float)


# --- protocols and callables over handles --------------------------------------------------------


class Adds(Protocol):
    def add(self, cents: int, /) -> Awaitable[int]: ...


class Ledger(Protocol):
    """A view of a handle without the members that it lacks at run time."""

    async def add(self, cents: int) -> int: ...
    async def settle(self, note: str) -> float: ...


class Echoes(Protocol):
    def echo(self, value: T) -> Awaitable[T]: ...
    async def echo_later(self, value: T) -> T: ...
    async def load(self, key: int) -> Any: ...
    async def tag(self, **tags: str) -> int: ...


async def through_protocols(runtime: DurableRuntime) -> None:
    adders: list[Adds] = [runtime.get(Plain, "a"), runtime.get(More, "b"), runtime.get(Wider, "c")]
    for adder in adders:
        assert_type(await adder.add(1), int)
    ledger: Ledger = runtime.get(Plain, "a")
    assert_type(await ledger.settle("x"), float)
    echoes: Echoes = runtime.get(Tools, "t")
    assert_type(await echoes.echo(3), int)
    assert_type(await echoes.echo_later("x"), str)


async def retried(call: Callable[[], Awaitable[T]], attempts: int = 3) -> T:
    for _ in range(attempts - 1):
        try:
            return await call()
        except TimeoutError:
            continue
    return await call()


async def logged(call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    return await call(*args, **kwargs)


async def through_tasks(runtime: DurableRuntime) -> None:
    more = runtime.get(More, "m")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(more.add, 1, 2)
        nursery.start_soon(partial(more.add, note="x"), 1)
    assert_type(await logged(more.add, 1, note="x"), int)
    classes: list[type[Plain]] = [Plain, More, Wider]
    for cls in classes:
        assert_type(await cls.add("m", 1), int)


async def through_callables(runtime: DurableRuntime) -> None:
    account, tools = runtime.get(More, "m"), runtime.get(Tools, "t")
    base: Account = runtime.get(Plain, "a")
    assert_type(await retried(account.limit), int)
    assert_type(await retried(account.owner), str)
    add: Callable[[int], Coroutine[Any, Any, int]] = account.add
    bound: BoundHandler[Callable[[int], Awaitable[int]]] = account.add
    detached = More(cents=1)
    plain: BoundSyncHandler[Callable[[int], Awaitable[int]], Callable[[int], int]] = detached.add
    settle: BoundHandler[Callable[[str], Awaitable[float]]] = base.settle
    echo: Callable[[int], Awaitable[int]] = tools.echo
    client: Callable[[str, int], Awaitable[int]] = More.add
    assert_type(await add(1), int)
    assert_type(await bound(1), int)
    assert_type(plain.function(1), int)
    assert_type(await settle("x"), float)
    assert_type(await echo(1), int)
    assert_type(await client("m", 1), int)


# --- handles as values ---------------------------------------------------------------------------


@attrs.frozen
class Transfer:
    source: Account
    target: Account
    cents: int


class Bank(DurableObject):
    transfers: int = 0

    @handler
    async def transfer(self, source: Account, target: Account, cents: int) -> None:
        await source.add(-cents)
        await target.add(cents)
        self.transfers += 1
        if self.transfers == 1:
            self.ctx.schedule_alarm("audit", after=timedelta(days=1))

    @handler
    async def transfer_all(self, transfers: list[Transfer]) -> list[Account]:
        for each in transfers:
            await self.transfer(each.source, each.target, each.cents)
        return [each.target for each in transfers]

    @handler(readonly=True)
    def account(self, name: str) -> Plain:
        return self.ctx.runtime.get(Plain, name)

    @alarm(retry=Retry(attempts=5))
    async def audit(self) -> None:
        due = self.ctx.alarm
        assert due is not None
        self.ctx.schedule_alarm("audit", at=due.due_at + timedelta(days=1))


async def use_bank(objects: Objects) -> None:
    bank = objects.get(Bank, "b")
    found = await bank.account("ada")
    assert_type(found, Plain)
    await bank.transfer(found, objects.get(More, "eve"), 5)
    paid = await bank.transfer_all([Transfer(found, objects.get(More, "eve"), 5)])
    assert_type(paid, list[Account])
    handles = {objects.get(Plain, name) for name in ("ada", "bob")}
    assert_type(handles, set[Plain])
    names: dict[Account, str] = dict.fromkeys(handles, "known")
    names[objects.get(Wider, "w")] = "wide"
    assert found in handles


# --- together ------------------------------------------------------------------------------------


async def main() -> None:
    async with DurableRuntime(":memory:") as runtime:
        await use_tools(runtime)
        await use_accounts(runtime)
        await through_protocols(runtime)
        await through_callables(runtime)
        await through_tasks(runtime)
        for objects in (runtime, runtime.tenant("acme")):
            await use_bank(objects)
            await assert_alarm_scheduled(objects, Bank, "b", "audit", within=timedelta(days=1))
    turn = await perform_handler(More(cents=1), "add", 2, times=3)
    assert_type(turn.state, More)
    assert turn.state.cents == 7


if __name__ == "__main__":
    trio.run(main)
