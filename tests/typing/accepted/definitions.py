"""Class bodies: fields, class keywords, inheritance, mixins, what handlers do with self."""

from __future__ import annotations

import abc
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import ClassVar, ParamSpec, TypeVar, assert_type

import attrs

from trio_durable import (
    Context,
    DurableObject,
    DurableRuntime,
    FieldDefinition,
    HandlerDefinition,
    ObjectDefinition,
    ObjectKey,
    Objects,
    definition_of,
    handler,
)

P = ParamSpec("P")
R = TypeVar("R")


class Counter(
    DurableObject,
    name="counter",
    hibernate_after=None,
    shutdown_after=timedelta(hours=1),
    call_timeout=2.5,
    mailbox_size=16,
):
    STEP = 1
    LIMITS: ClassVar[tuple[int, int]] = (0, 100)

    count: int = 0
    title: str | None = None
    history: list[int] = attrs.field(factory=list[int])
    _secret: str = ""

    async def after_load(self) -> None:
        self.title = self.title or self.ctx.object_id

    @handler
    def increment(self, by: int = 1) -> int:
        """Add to the count."""
        self.count += by * self.STEP
        self.history.append(self.count)
        return self.count

    @handler
    async def settle(self) -> str:
        await self.ctx.commit()
        assert_type(self.ctx, Context)
        assert_type(self.ctx.key, ObjectKey)
        assert_type(self.ctx.object_id, str)
        assert_type(self.ctx.runtime, Objects)
        other = self.ctx.runtime.get(Counter, "total")
        assert_type(await other.increment(self.count), int)
        return await self.describe()

    @handler(readonly=True)
    async def describe(self) -> str:
        return f"{self.title}: {self.count}"

    @handler
    def clear(self) -> None:
        self.ctx.delete()

    def helper(self) -> int:
        return self.count


def constructed() -> None:
    counter = Counter(count=3, title="three", history=[1, 2, 3], _secret="s")
    assert_type(counter.count, int)
    assert_type(counter.title, str | None)
    assert_type(counter.history, list[int])
    assert_type(counter.helper(), int)
    counter.count = 4
    Counter()


class Loud(Counter):
    """Overrides both kinds of handlers and reaches the ones it replaces."""

    volume: int = 11

    @handler
    def increment(self, by: int = 1) -> int:
        assert_type(super().increment.function(by), int)
        return super().increment.function(by * 2)

    @handler(readonly=True)
    async def describe(self) -> str:
        text = await super().describe()
        assert_type(text, str)
        return text.upper()


def inherited() -> None:
    loud = Loud(count=1, volume=3)
    assert_type(loud.count, int)
    assert_type(loud.volume, int)


class Shape(DurableObject, abc.ABC):
    """An abstract base with an abstract handler."""

    scale: float = 1.0

    @handler
    @abc.abstractmethod
    def area(self) -> float: ...


class Square(Shape):
    side: float = 2.0

    @handler
    def area(self) -> float:
        return self.side**2 * self.scale


class Audited(DurableObject):
    """A mixin that is a durable object class itself."""

    audit: list[str] = attrs.field(factory=list[str])

    @handler(readonly=True)
    def trail(self) -> list[str]:
        return self.audit


class Tagged:
    """A plain mixin that brings a handler."""

    @handler
    def tags(self) -> list[str]:
        return []


class Document(Audited, Tagged, hibernate_after=5):
    text: str = ""

    @handler
    def write(self, text: str) -> None:
        self.text = text
        self.audit.append(text)


async def mixed(runtime: DurableRuntime) -> None:
    document = runtime.get(Document, "d")
    await document.write("x")
    assert_type(await document.trail(), list[str])
    assert_type(await document.tags(), list[str])
    assert_type(await Document.trail("d"), list[str])
    assert_type(await runtime.get(Square, "s").area(), float)
    Document(text="a", audit=["b"])


def logged(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return inner


class Decorated(DurableObject):
    total: int = 0

    @handler
    @logged
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

    @handler(readonly=True)
    @logged
    async def shown(self) -> str:
        return str(self.total)


async def decorated(runtime: DurableRuntime) -> None:
    handle = runtime.get(Decorated, "x")
    assert_type(await handle.add(1), int)
    assert_type(await handle.shown(), str)


def introspected() -> None:
    definition = definition_of(Counter)
    assert_type(definition, ObjectDefinition)
    assert_type(definition.name, str)
    assert_type(definition.fields["count"], FieldDefinition)
    assert_type(definition.handlers["increment"], HandlerDefinition)
    assert_type(definition.default_state(), DurableObject)
