"""The ``@upgrade`` decorator and the checks of a class's upgrades.

The *schema* of a class is a number that counts the forms its state has had: 1, unless the class
keyword ``schema`` says otherwise. An upgrade is a function from the JSON data of one schema to the
data of the next. The codec applies upgrades, see `_json.upgrades`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import FunctionType, MappingProxyType
from typing import Any, TypeVar, cast

from .._durations import positive_int
from .._errors import DefinitionError
from .._json.upgrades import UpgradeDefinition

F = TypeVar("F", bound=Callable[[dict[str, Any]], dict[str, Any]])


class Upgrade:
    """The descriptor that ``@upgrade`` makes of a static method. The class shows the function."""

    def __init__(self, thing: object, from_schema: object) -> None:
        self.from_schema = from_schema
        self._thing = thing

    @property
    def function(self) -> object:
        """The function, or None if the marked member is no static method."""
        return self._thing.__func__ if isinstance(self._thing, staticmethod) else None

    def __get__(self, instance: object, owner: type, /) -> object:
        return self.function


def upgrade(*, from_schema: int) -> Callable[[F], F]:
    """Make a static method the upgrade of stored state from one schema to the next.

    ::

        class Cart(DurableObject, schema=2):
            total_cents: int = 0

            @upgrade(from_schema=1)
            @staticmethod
            def count_cents(state: dict[str, Any]) -> dict[str, Any]:
                state["total_cents"] = round(state.pop("total", 0) * 100)
                return state

    The method gets the plain JSON data that a class of schema ``from_schema`` has stored, which it
    may change in place, and returns the data of the next schema. It runs when such a state is
    loaded. The upgraded state is stored when the object is next saved.

    Args:
        from_schema: The schema of the data that the method takes. A class has one upgrade from
            each schema below its own.
    """

    def mark(function: F) -> F:
        return cast("F", Upgrade(function, from_schema))

    return mark


def upgrades_of(cls: type, schema: int) -> Mapping[int, UpgradeDefinition]:
    """The upgrades of ``cls``, inherited ones included, by the schema of the data they take.

    Raises:
        DefinitionError: A marked member can't be an upgrade, or the upgrades don't lead step by
            step to ``schema``.
    """
    by_name = {
        name: value
        for base in reversed(cls.__mro__)
        for name, value in vars(base).items()
        if isinstance(value, Upgrade)
    }
    found: dict[int, UpgradeDefinition] = {}
    for name, value in by_name.items():
        step = _definition(cls, name, value)
        number = step.from_schema
        if number in found:
            raise DefinitionError(
                cls.__qualname__,
                name,
                f"{found[number].name} upgrades from schema {number} already; give this one the "
                "next number, or override an inherited upgrade by its own name",
            )
        if number >= schema:
            raise DefinitionError(
                cls.__qualname__,
                name,
                f"it upgrades from schema {number}, but the class has schema {schema}; write "
                f"schema={number + 1} after the bases, or remove the upgrade",
            )
        found[number] = step
    for number in range(1, schema):
        if number not in found:
            raise DefinitionError(
                cls.__qualname__,
                "",
                f"has schema {schema}, but no upgrade from schema {number}; add one, marked with "
                f"@upgrade(from_schema={number})",
            )
    return MappingProxyType(dict(sorted(found.items())))


def _definition(cls: type, name: str, value: Upgrade) -> UpgradeDefinition:
    try:
        number = positive_int(value.from_schema, "from_schema")
    except ValueError as error:
        raise DefinitionError(cls.__qualname__, name, str(error)) from None
    function = value.function
    problem = None
    if not isinstance(function, FunctionType):
        problem = "@upgrade goes on a function marked with @staticmethod, directly above it"
    elif (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or inspect.isgeneratorfunction(function)
    ):
        problem = "an upgrade can't await or yield; it takes the dict and returns one"
    elif not _takes_one(function):
        problem = f"an upgrade takes one argument, the dict of schema {number}"
    if problem:
        raise DefinitionError(cls.__qualname__, name, problem)
    return UpgradeDefinition(name, cast("Any", function), number)


def _takes_one(function: FunctionType) -> bool:
    try:
        inspect.signature(function).bind({})
    except TypeError:
        return False
    return True
