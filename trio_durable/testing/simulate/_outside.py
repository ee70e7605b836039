"""Stand-ins for the world outside of the objects, which a crash of their process doesn't undo."""

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
    """A method of a simulation that stands for something outside."""

    owner: object
    name: str
    fails_with: type[Exception] | None

    @contextmanager
    def in_place(self, method: Callable[..., Any], life: Callable[[], Life]) -> Iterator[None]:
        """Let ``method`` be in the place of what it stands for, for the processes of ``life``."""
        original = getattr(self.owner, self.name)
        setattr(self.owner, self.name, self._guarded(method, life))
        try:
            yield
        finally:
            setattr(self.owner, self.name, original)

    def _guarded(self, method: Callable[..., Any], life: Callable[[], Life]) -> Callable[..., Any]:
        def failure() -> Exception:
            kind = self.fails_with
            assert kind is not None  # no other fault is drawn, and `Simulation` refuses it
            return kind("as the story says")

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
    """Let a method of a `Simulation` stand for something outside while the simulation runs.

    ``owner.name`` is replaced by the method, which gets the same arguments and is ``def`` or
    ``async def`` as that is. What it writes down in attributes of the simulation is there after a
    crash, as what was done to the world is. Each call is a point at which a fault may be: the
    process may die just after it, and with ``fails_with`` it may fail as well, before it was done
    or after. Nothing reaches it from a process that has died.

    Args:
        owner: The module, or the object, that it is looked up in when it is used.
        name: Its name there.
        fails_with: What its users get when it fails: the error of a broken connection, say. It is
            made with one argument, a text.
    """

    def mark(method: F) -> F:
        setattr(method, _MARK, StandIn(owner, name, fails_with))
        return method

    return mark


def stand_ins(cls: type, title: str) -> dict[str, StandIn]:
    """Those of a simulation, by the names of the methods.

    Raises:
        DefinitionError: One stands for nothing.
    """
    found: dict[str, StandIn] = {}
    for name, value in inspect.getmembers(cls, inspect.isfunction):
        mark: StandIn | None = getattr(value, _MARK, None)
        if mark is None:
            continue
        original = getattr(mark.owner, mark.name, None)
        if original is None:
            raise DefinitionError(title, name, f"{mark.owner!r} has no {mark.name} to stand for")
        if inspect.iscoroutinefunction(original) != inspect.iscoroutinefunction(value):
            right = "async def" if inspect.iscoroutinefunction(original) else "def"
            raise DefinitionError(title, name, f"must be {right}, as {mark.name} is")
        found[name] = mark
    return found
