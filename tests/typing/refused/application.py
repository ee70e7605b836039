"""Wrong lines of an application that uses generics, overrides, protocols and handles as values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, Self, TypedDict, TypeVar, Unpack, overload

from trio_durable import BoundHandler, BoundSyncHandler, Client, DurableObject, Objects, handler

T = TypeVar("T")
N = TypeVar("N", bound=float)


def use(*values: object) -> None:
    """Stands for whatever is done with the values."""


# --- generic handlers, and others with special signatures ----------------------------------------


class Options(TypedDict, total=False):
    colour: str
    size: int


class Tools(DurableObject):
    @handler
    def echo(self, value: T) -> T:
        return value

    @handler
    async def echo_later(self, value: T) -> T:
        return value

    @handler
    def last(self, values: list[T]) -> T:
        return values[-1]

    @handler
    def larger(self, left: N, right: N) -> N:
        return max(left, right)

    @handler
    def tag(self, **tags: str) -> int:
        return len(tags)

    @handler
    async def note(self, *, text: str, copies: int = 1) -> list[str]:
        return [text] * copies

    @handler
    def paint(self, **options: Unpack[Options]) -> str:
        return options.get("colour", "black")

    @handler
    def load(self, key: int) -> Any:
        return key

    @handler
    async def load_later(self, key: int) -> Any:
        return key

    @handler
    async def wrong_calls(self) -> None:
        text: str = self.echo.function(3)  # refused
        self.load.function("three")  # refused
        self.load_later.function(3)  # refused
        self.echo_later.function(3)  # refused
        self.echo("x")  # refused
        use(text)


async def wrong_arguments(objects: Objects) -> None:
    tools = objects.get(Tools, "t")
    await tools.echo()  # refused
    await tools.last(3)  # refused
    await tools.larger("a", "b")  # refused
    await tools.tag(colour=1)  # refused
    await tools.tag("red")  # refused
    await tools.note("x")  # refused
    await tools.note(text="x", copy=1)  # refused
    await tools.paint(colour=1)  # refused
    await tools.paint(weight=1)  # refused
    await tools.load("three")  # refused
    await tools.load_later()  # refused
    await Tools.echo(3, 3)  # refused
    await Tools.last("t", 3)  # refused
    await Tools.tag("t", colour=1)  # refused
    await Tools.load("t", "three")  # refused


async def wrong_results(objects: Objects) -> None:
    tools = objects.get(Tools, "t")
    text: str = await tools.echo(3)  # refused
    later: str = await tools.echo_later(3)  # refused
    last: str = await tools.last([3])  # refused
    larger: str = await tools.larger(1, 2)  # refused
    client: str = await Tools.echo("t", 3)  # refused
    use(text, later, last, larger, client)


async def forgotten_awaits(objects: Objects) -> None:
    tools = objects.get(Tools, "t")
    tools.echo(3)  # refused
    tools.echo_later(3)  # refused
    tools.load(3)  # refused
    tools.load_later(3)  # refused
    tools.tag(colour="red")  # refused
    Tools.echo("t", 3)  # refused
    use(tools.echo(3) + 1)  # refused


class Unusual(DurableObject):
    @handler  # refused by mypy: another name than self, together with **kwargs
    def tag(this, **tags: str) -> int:  # noqa: N805
        return len(tags)

    @overload
    def get(self, key: int) -> int: ...
    @overload
    def get(self, key: str) -> str: ...
    @handler  # refused by mypy: a handler has no overloads
    def get(self, key: int | str) -> int | str:
        return key

    @handler
    def me(self) -> Self:
        return self


async def wrong_self(objects: Objects) -> None:
    text: str = await objects.get(Unusual, "u").me()  # refused by pyright: Never to mypy
    use(text)


# --- generic bases -------------------------------------------------------------------------------


class Repository(DurableObject, Generic[T]):
    @handler
    def put(self, key: str, value: T) -> T:
        return value

    @handler
    async def all(self) -> list[T]:
        return []


class Numbers(Repository[int]):
    @handler
    def put(self, key: str, value: str) -> str:  # refused
        return value


class Words(Repository[str]):
    pass


async def wrong_repositories(objects: Objects) -> None:
    words = objects.get(Words, "w")
    await words.put("a", 1)  # refused
    await Words.put("w", "a", 1)  # refused
    numbers: list[int] = await words.all()  # refused
    use(numbers)


# --- overriding ----------------------------------------------------------------------------------


class Account(DurableObject):
    cents: int = 0

    @handler
    def add(self, cents: int, note: str = "") -> int:
        return cents

    @handler
    async def settle(self, note: str) -> float:
        return 0.0


class Fewer(Account):
    @handler
    def add(self, cents: int) -> int:  # refused
        return cents


class Required(Account):
    @handler
    def add(self, cents: int, note: str = "", *, reason: str) -> int:  # refused
        return cents


class Narrower(Account):
    @handler
    async def settle(self, note: None) -> float:  # refused
        return 0.0


class Wider(Account):
    @handler
    def add(self, cents: int, note: str = "") -> int | None:  # refused
        return super().add.function("1")  # refused


class Later(Account):
    # The base's users may run the function of a def, self.add.function(1), which is no coroutine.
    @handler
    async def add(self, cents: int, note: str = "") -> int:  # refused
        return cents


class Sooner(Account):
    @handler
    def settle(self, note: str) -> float:  # refused by pyright: compares the functions as written
        return 0.0


class Plain(Account):
    def add(self, cents: int, note: str = "") -> int:  # refused
        return cents


# --- protocols and callables over handles --------------------------------------------------------


class AddsText(Protocol):
    def add(self, cents: str, /) -> Awaitable[int]: ...


class ReturnsText(Protocol):
    async def add(self, cents: int) -> str: ...


class AddsAtOnce(Protocol):
    def add(self, cents: int) -> int: ...


class Subtracts(Protocol):
    async def subtract(self, cents: int) -> int: ...


class Ledger(Protocol):
    async def add(self, cents: int) -> int: ...


async def wrong_protocols(objects: Objects, ledger: Ledger) -> None:
    account = objects.get(Account, "a")
    text: AddsText = account  # refused
    result: ReturnsText = account  # refused
    at_once: AddsAtOnce = account  # refused
    subtracts: Subtracts = account  # refused
    use(text, result, at_once, subtracts)
    # A view of a handle as a protocol has none of the members that a handle lacks.
    ledger = account
    use_ledger(ledger)


def use_ledger(ledger: Ledger) -> None:
    ledger.cents = 3  # refused
    use(ledger.cents)  # refused
    use(ledger.ctx)  # refused


async def wrong_callables(objects: Objects) -> None:
    account = objects.get(Account, "a")
    add: Callable[[str], Awaitable[int]] = account.add  # refused
    at_once: Callable[[int], int] = account.add  # refused
    bound: BoundHandler[Callable[[int], Awaitable[str]]] = account.add  # refused
    plain: BoundSyncHandler[Callable[[str], object], object] = account.settle  # refused
    client: Client[[str], int] = Account.add  # refused
    use(add, at_once, bound, plain, client)


# --- handles as values ---------------------------------------------------------------------------


class Bank(DurableObject):
    @handler
    async def transfer(self, source: Account, cents: int) -> Account:
        return source


async def wrong_values(objects: Objects) -> None:
    bank, account = objects.get(Bank, "b"), objects.get(Account, "a")
    await bank.transfer("a", 5)  # refused
    await bank.transfer(bank, 5)  # refused
    narrower: Fewer = await bank.transfer(account, 5)  # refused
    names: dict[Bank, str] = {account: "a"}  # refused
    by_name = objects.get("Account", "a")
    by_name.cents = 3  # refused
    account.balance = 3  # refused
    use(narrower, names)
