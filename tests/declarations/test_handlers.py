"""Handlers as declared: how they are called, and which methods can be one."""

from __future__ import annotations

import functools
import gc
import inspect
import typing
from collections.abc import Callable
from typing import Any

import pytest
import trio

from trio_durable import DurableObject, definition_of, handler

from .examples import Counter, logged, run


def test_handlers_in_the_definition() -> None:
    handlers = definition_of(Counter).handlers
    assert list(handlers) == ["increment", "describe"]
    increment, describe = handlers["increment"], handlers["describe"]
    assert (increment.name, increment.readonly, increment.is_async) == ("increment", False, False)
    assert (describe.name, describe.readonly, describe.is_async) == ("describe", True, True)
    assert list(increment.signature.parameters) == ["by"]
    assert list(describe.signature.parameters) == ["loud"]
    assert increment.function(Counter(count=3), 4) == 7
    with pytest.raises(TypeError):
        handlers["other"] = increment  # type: ignore[index]


def test_handlers_on_a_detached_instance() -> None:
    counter = Counter()
    assert run(counter.increment(2)) == 2
    assert run(counter.increment(by=3)) == 5
    assert run(counter.describe()) == "5"
    assert counter.increment.function(1) == 6
    assert counter.helper() == 6


def test_clients_and_bound_handlers_say_what_they_are() -> None:
    assert repr(Counter.increment) == "<client of Counter.increment>"
    assert repr(Counter().increment) == "<handler Counter.increment>"
    assert Counter.increment.__doc__ == "Add to the count."
    assert Counter.__doc__ == "Counts."


def test_docstrings_reach_the_tools() -> None:
    assert inspect.getdoc(Counter.increment) == "Add to the count."
    assert definition_of(Counter).handlers["increment"].function.__doc__ == "Add to the count."


def test_decorated_handlers() -> None:
    def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def inner(*args: Any, **kwargs: Any) -> Any:
            return ("awaited", await function(*args, **kwargs))

        return inner

    class Decorated(DurableObject):
        total: int = 0

        @handler
        @logged
        def add(self, amount: int) -> int:
            """Add up."""
            return amount

        @handler(readonly=True)
        @awaited
        async def shown(self) -> str:
            return "x"

        @handler
        @logged
        async def hidden(self) -> str:
            return "async behind a def"

    handlers = definition_of(Decorated).handlers
    assert list(handlers["add"].signature.parameters) == ["amount"]
    assert handlers["add"].function.__doc__ == "Add up."
    assert not handlers["add"].is_async
    assert handlers["shown"].is_async
    assert run(Decorated().add(3)) == ("logged", 3)
    assert run(Decorated().shown()) == ("awaited", "x")


def test_handlers_with_every_kind_of_parameter() -> None:
    class Wide(DurableObject):
        @handler
        def work(self, a: int, /, b: int = 2, *rest: int, c: int, **more: int) -> list[Any]:
            return [a, b, rest, c, more]

        @handler
        def any(*everything: Any) -> int:
            return len(everything)

        @handler
        def positional(self, /) -> str:
            return "x"

    assert run(Wide().work(1, 2, 3, c=4, d=5)) == [1, 2, (3,), 4, {"d": 5}]
    assert str(definition_of(Wide).handlers["work"].signature.replace(return_annotation=list)) == (
        "(a: 'int', /, b: 'int' = 2, *rest: 'int', c: 'int', **more: 'int') -> list"
    )
    assert str(definition_of(Wide).handlers["positional"].signature) == "() -> 'str'"


def test_the_signature_of_a_handler_that_takes_self_among_args() -> None:
    class Wide(DurableObject):
        @handler
        def work(*everything: int) -> int:
            return len(everything)

    assert list(definition_of(Wide).handlers["work"].signature.parameters) == ["everything"]


def test_one_handler_under_two_names() -> None:
    class Twice(DurableObject):
        @handler
        def first(self) -> str:
            return "x"

        second = first

    assert definition_of(Twice).handlers.keys() == {"first", "second"}
    for name, found in definition_of(Twice).handlers.items():
        assert found.name == name


def test_plain_methods_properties_and_friends_may_stay() -> None:
    class Free(DurableObject):
        count: int = 0

        class Inner:
            pass

        def method(self) -> int:
            return self.count

        async def coroutine(self) -> int:
            return self.count

        @property
        def doubled(self) -> int:
            return self.count * 2

        @functools.cached_property
        def cached(self) -> int:
            return 1

        @staticmethod
        def static() -> str:
            return "static"

        @classmethod
        def make(cls) -> Free:
            return cls(count=7)

        part = functools.partialmethod(method)

        def __len__(self) -> int:
            return self.count

    free = Free.make()
    assert (free.count, free.doubled, free.method(), Free.static(), len(free)) == (
        7,
        14,
        7,
        "static",
        7,
    )
    assert definition_of(Free).handlers == {}


@pytest.mark.parametrize("is_async", [False, True])
def test_after_load(is_async: bool) -> None:
    def plain(self: object) -> None: ...

    async def coroutine(self: object) -> None: ...

    cls = typing.cast(
        "type[DurableObject]",
        type("Loads", (DurableObject,), {"after_load": coroutine if is_async else plain}),
    )
    assert definition_of(cls).has_after_load
    assert definition_of(cls).after_load_is_async is is_async
    assert not definition_of(Counter).has_after_load


def test_the_inherited_after_load_can_be_awaited_and_dropped() -> None:
    async def main() -> None:
        awaited = Counter().after_load()
        assert awaited is not None
        await awaited

    Counter().after_load()
    gc.collect()
    trio.run(main)
