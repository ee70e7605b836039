"""Classes that the tests of declarations share, and classes that are defined from text."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
import typing
from collections.abc import Callable, Coroutine
from dataclasses import InitVar, dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, TypeAlias, TypeVar

import attrs
import trio

from trio_durable import (
    DurableObject,
    PersistenceError,
    Retry,
    StaleObject,
    alarm,
    handler,
    upgrade,
)

R = TypeVar("R")


class Counter(DurableObject):
    """Counts."""

    STEP = 1
    limit: ClassVar[int] = 100

    count: int = 0
    title: str | None = None
    history: list[int] = attrs.field(factory=list)
    _secret: str = "s"

    @handler
    def increment(self, by: int = 1) -> int:
        """Add to the count."""
        self.count += by * self.STEP
        return self.count

    @handler(readonly=True)
    async def describe(self, *, loud: bool = False) -> str:
        await trio.lowlevel.checkpoint()
        return str(self.count)

    def helper(self) -> int:
        return self.count


def run(coroutine: Coroutine[Any, Any, R]) -> R:
    async def main() -> R:
        return await coroutine

    return trio.run(main)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return ("logged", function(*args, **kwargs))

    return inner


class Loud(Counter):
    volume: int = 11
    count: int = 5

    @handler
    def increment(self, by: int = 1) -> int:
        return super().increment.function(by) * 100

    @handler(readonly=True)
    async def describe(self, *, loud: bool = True) -> str:
        return (await super().describe(loud=loud)) + "!"


class Reminder(DurableObject):
    """Has an alarm of each kind."""

    rung: int = 0

    @alarm
    def ring(self) -> None:
        """Ring."""
        self.rung += 1

    @alarm(retry=Retry(initial=1, attempts=3))
    async def ring_slowly(self) -> None:
        await trio.lowlevel.checkpoint()
        self.rung += 10

    @alarm()
    def ring_quietly(self, volume: int = 0, *more: int, **named: int) -> int:
        return volume

    @handler
    def ring_now(self) -> int:
        self.ring()
        return self.rung

    @handler
    async def ring_slowly_now(self) -> int:
        await self.ring_slowly()
        return self.rung


class Billed(DurableObject, schema=2):
    cents: int = 0

    @upgrade(from_schema=1)
    @staticmethod
    def to_cents(state: dict[str, Any]) -> dict[str, Any]:
        """Count cents."""
        state["cents"] = state.pop("price") * 100
        return state

    @handler
    def pay(self) -> None: ...


class Labelled(DurableObject, schema=2):
    label: str = ""

    @upgrade(from_schema=1)
    @staticmethod
    def to_label(state: dict[str, Any]) -> dict[str, Any]:
        return state


def as_it_is(state: dict[str, Any], note: str = "") -> dict[str, Any]:
    return state


UPGRADE = "@upgrade(from_schema={})\n@staticmethod\ndef {}(state): return state\n"


@attrs.define
class Mutable:
    value: int = 0


class Slotted:
    __slots__ = ("kept",)


class SlottedHeir(Slotted):
    pass


@attrs.define
class SlottedAttrs:
    kept: int = 0


@dataclass
class Record:
    kept: int = 0


@attrs.frozen(slots=False)
class FrozenAttrs:
    kept: int = 0


class SetUp:
    def __init__(self) -> None: ...


@attrs.define(slots=False, init=False)
class SetUpAttrs:
    def __init__(self) -> None: ...


class SetUpLater:
    def __attrs_post_init__(self) -> None: ...


NAMES: dict[str, object] = {
    "Alias": ClassVar,
    "Annotated": Annotated,
    "Final": Final,
    "FrozenAttrs": FrozenAttrs,
    "InitVar": InitVar,
    "Record": Record,
    "SetUp": SetUp,
    "SetUpAttrs": SetUpAttrs,
    "SetUpLater": SetUpLater,
    "Slotted": Slotted,
    "SlottedAttrs": SlottedAttrs,
    "SlottedHeir": SlottedHeir,
    "T": TypeVar("T"),
    "TypeAlias": TypeAlias,
    "collections": collections,
    "dataclasses": dataclasses,
    "threading": threading,
    "Billed": Billed,
    "ClassVar": ClassVar,
    "Counter": Counter,
    "DurableObject": DurableObject,
    "Labelled": Labelled,
    "Loud": Loud,
    "Mutable": Mutable,
    "Reminder": Reminder,
    "PersistenceError": PersistenceError,
    "Retry": Retry,
    "StaleObject": StaleObject,
    "alarm": alarm,
    "as_it_is": as_it_is,
    "attrs": attrs,
    "functools": functools,
    "handler": handler,
    "logged": logged,
    "timedelta": timedelta,
    "typing": typing,
    "upgrade": upgrade,
}
"""Names that the text of a class may use."""


def define(head: str, body: str) -> type[DurableObject]:
    namespace: dict[str, Any] = {**NAMES, "__name__": "defined"}
    lines = body.splitlines() or ["pass"]
    exec(f"class Wrong({head}):\n" + "\n".join(f"    {line}" for line in lines), namespace)
    return typing.cast("type[DurableObject]", namespace["Wrong"])
