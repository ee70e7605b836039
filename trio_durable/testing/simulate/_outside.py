"""Stand-ins for the outside world, whose state outlives the crash of a process."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, TypeVar

import attrs

from ..._errors import DefinitionError
from ._faults import Life

F = TypeVar("F", bound=Callable[..., object])

_MARK = "__durable_outside__"


@attrs.frozen
class StandIn:
    """A replacement of ``owner.name`` by a method of a simulation."""

    owner: object
    name: str
    fails_with: type[Exception] | None

    @contextmanager
    def in_place(self, method: Callable[..., Any], life: Callable[[], Life]) -> Iterator[None]:
        """Replace ``owner.name`` by ``method``, whose calls are points in the life of a process."""
        original = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self._guarded(method, life))
        try:
            yield
        finally:
            setattr(self.owner, self.name, original)

    def _guarded(self, method: Callable[..., Any], life: Callable[[], Life]) -> Callable[..., Any]:
        def failure() -> Exception:
            kind = self.fails_with
            assert (
                kind is not None
            )  # no such fault is drawn, and `Faults` refuses one that is given
            return kind("injected fault")

        if inspect.iscoroutinefunction(method):

            @wraps(method)
            async def wait(*args: object, **kwargs: object) -> object:
                life().pass_point("before", "effect", failure)
                result = await method(*args, **kwargs)
                life().pass_point("after", "effect", failure)
                return result

            return wait

        @wraps(method)
        def call(*args: object, **kwargs: object) -> object:
            life().pass_point("before", "effect", failure)
            result = method(*args, **kwargs)
            life().pass_point("after", "effect", failure)
            return result

        return call


def outside(
    owner: object, name: str, *, fails_with: type[Exception] | None = None
) -> Callable[[F], F]:
    """Replace a function of the outside world by a method of a `Simulation` while that runs.

    The method replaces ``owner.name``. It gets the same arguments and must be ``def`` or
    ``async def`` as the original is. It can record its calls in attributes of the simulation, which
    outlive a crash as the outside world does. A fault can be injected at each call: a crash of the
    process just after it, and with ``fails_with`` an error before or after it. A process that has
    died doesn't reach the method.

    Args:
        owner: The module or object whose attribute the objects' code looks up at each use.
        name: The name of the attribute.
        fails_with: The error that a failing call raises, such as that of a broken connection. It is
            called with one argument, a text.
    """

    def mark(method: F) -> F:
        setattr(method, _MARK, StandIn(owner, name, fails_with))
        return method

    return mark


def stand_ins(cls: type, title: str) -> dict[str, StandIn]:
    """The stand-ins of a simulation, by the names of its methods.

    Raises:
        DefinitionError: A stand-in doesn't fit the attribute that it replaces.
    """
    found: dict[str, StandIn] = {}
    for name, value in inspect.getmembers(cls, inspect.isfunction):
        mark: StandIn | None = getattr(value, _MARK, None)
        if mark is None:
            continue
        original = getattr(mark.owner, mark.name, None)
        if original is None:
            raise DefinitionError(title, name, f"{mark.owner!r} has no {mark.name} to replace")
        if inspect.iscoroutinefunction(original) != inspect.iscoroutinefunction(value):
            right = "async def" if inspect.iscoroutinefunction(original) else "def"
            raise DefinitionError(title, name, f"must be {right}, as {mark.name} is")
        found[name] = mark
    return found
