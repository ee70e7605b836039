"""Awaiting a coroutine in given context variables.

A worker serves many callers; each turn sees its own caller's context variables.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any


class InContext:
    """Awaits a coroutine with its steps run in a given context.

    Args:
        coroutine: The coroutine.
        context: Its context variables.
        step: Calls a function with arguments, see `Loop.interruptible`.
    """

    __slots__ = ("_context", "_coroutine", "_step")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, object],
        context: Context,
        step: Callable[..., Any],
    ) -> None:
        self._coroutine = coroutine
        self._context = context
        self._step = step

    def __await__(self) -> Generator[Any, Any, object]:
        step, run, coroutine = self._step, self._context.run, self._coroutine
        sent = None
        try:
            yielded = step(run, coroutine.send, None)
            while True:
                try:
                    sent = yield yielded
                except BaseException as error:  # noqa: BLE001  # thrown by the event loop
                    yielded = step(run, coroutine.throw, error)
                else:
                    yielded = step(run, coroutine.send, sent)
        except StopIteration as stop:
            return stop.value
        finally:
            # Trio sends the outcome of a wait, which holds its exception. The frames in the
            # traceback of that hold this frame, so it must not hold the outcome.
            sent = None
