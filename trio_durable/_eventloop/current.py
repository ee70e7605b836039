"""Which runtime a call means when it doesn't say.

A context variable where one is set, else the one runtime that is open in this event loop: web
frameworks run requests in tasks that don't inherit the lifespan's context.

The client that ``@handler`` puts on a class needs a runtime from below it in the import order,
so this module knows a runtime only by what it has to do here.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Protocol

from .._errors import NoRuntime


class Dispatcher(Protocol):
    """The part of a runtime, or of a tenant of one, that a class's generated client uses."""

    @property
    def root(self) -> Dispatcher:
        """The runtime itself."""
        ...

    def _dispatch(
        self,
        cls: type,
        object_id: str,
        handler: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> Coroutine[Any, Any, object]:
        """Call a handler by name."""
        ...


ambient: ContextVar[Dispatcher | None] = ContextVar("trio_durable.runtime", default=None)
_open: dict[object, list[Dispatcher]] = {}


def opened(loop: object, runtime: Dispatcher) -> None:
    """Note that ``runtime`` serves ``loop``."""
    _open.setdefault(loop, []).append(runtime)


def closed(loop: object, runtime: Dispatcher) -> None:
    """Forget what `opened` noted."""
    runtimes = _open.get(loop, [])
    if runtime in runtimes:
        runtimes.remove(runtime)
    if not runtimes:
        _open.pop(loop, None)


def current(loop: object) -> Dispatcher:
    """The runtime to use here.

    Raises:
        NoRuntime: None is open in this event loop, or several and the context names none.
    """
    runtimes = _open.get(loop, [])
    named = ambient.get(None)
    if named is not None and named.root in runtimes:
        return named
    if len(runtimes) != 1:
        raise NoRuntime(len(runtimes))
    return runtimes[0]
