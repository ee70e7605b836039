"""Observation: reports the loads and turns of activations to the instruments.

It exists only in a runtime that has instruments. Its seams are the places where an activation
begins a load or runs a turn: there ``services.observation`` is either None, and the work runs as it
is, or it runs inside of one of the methods below. Each event starts and ends in the context of the
request that it serves, as an OpenTelemetry span must.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TypeVar

from .._declarations.records import HandlerDefinition
from .._keys import ObjectKey
from .._telemetry.events import Call, Load, Turn
from .._telemetry.notifier import Notifier, request
from .object_type import ObjectType

R = TypeVar("R")


class Observation:
    """The loads and turns that run, as records for instruments."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._turns: dict[ObjectKey, Turn] = {}
        self._loads: dict[ObjectKey, tuple[Load, Context, float]] = {}

    # --- turns -----------------------------------------------------------------------------------

    def turn_of(self, key: ObjectKey) -> Turn | None:
        """The record of the turn that runs in an object; its commits refer to it."""
        return self._turns.get(key)

    def run(self, event: Turn, run: Callable[..., R], *args: object) -> R:
        """Run a turn that can't be interrupted. The caller is in the request's context."""
        self._turns[event.key] = event
        try:
            return self._notifier.around(event, run, *args)
        finally:
            self._turns.pop(event.key, None)

    def begin_async(self, event: Turn, context: Context) -> float:
        """Report the beginning of a turn that may suspend, in ``context``, the request's.

        Returns:
            The time, for `end_async`.
        """
        self._turns[event.key] = event
        return context.run(self._notifier.start, event)

    def end_async(
        self, key: ObjectKey, context: Context, began: float, error: BaseException | None
    ) -> None:
        """Report the end of that turn, unless that was done already."""
        event = self._turns.pop(key, None)
        if event is None:
            return
        duration = self._notifier.now() - began
        if error is None:
            context.run(self._notifier.stop, event, duration)
        else:
            context.run(self._notifier.fail, event, duration, error)

    def run_apart(self, key: ObjectKey, run: Callable[..., R], *args: object) -> R:
        """Run a change from outside, which is no part of the turn that may run meanwhile."""
        event = self._turns.pop(key, None)
        try:
            return run(*args)
        finally:
            if event is not None:
                self._turns[key] = event

    # --- loads -----------------------------------------------------------------------------------

    def begin_load(self, key: ObjectKey, context: Context) -> None:
        """Report that an object's row is being read, in the context of the first call."""
        load = Load(key)
        self._loads[key] = load, context, context.run(self._notifier.start, load)

    def end_load(self, key: ObjectKey, error: Exception | None) -> None:
        """Report that an object has its row, or that it could not be read."""
        started = self._loads.pop(key, None)
        if started is None:
            return  # the runtime closes, and doesn't wait for it
        load, context, began = started
        duration = self._notifier.now() - began
        if error is None:
            context.run(self._notifier.stop, load, duration)
        else:
            context.run(self._notifier.fail, load, duration, error)


def turn_event(key: ObjectKey, handler: HandlerDefinition) -> Turn:
    """The record of a handler's turn, for the request of the current context."""
    return Turn(
        *(key, handler.name, handler.readonly, handler.function, request.get(), handler.expected)
    )


def operation_event(key: ObjectKey, name: str) -> Turn:
    """The record of an operation's turn, for the request of the current context."""
    return Turn(key, name, False, None, request.get())


def after_load_event(key: ObjectKey, object_type: ObjectType) -> Turn:
    """The record of a turn of ``after_load``, which all queued requests wait for."""
    return Turn(key, "after_load", False, object_type.after_load, None)


async def observed(notifier: Notifier, call: Call, calling: Coroutine[object, object, R]) -> R:
    """Await a call, and report it in the caller's context."""
    began = notifier.start(call)
    request.set(call)
    try:
        result = await calling
    except BaseException as error:
        notifier.fail(call, notifier.now() - began, error)
        raise
    notifier.stop(call, notifier.now() - began)
    return result
