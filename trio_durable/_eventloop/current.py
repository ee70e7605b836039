"""The current runtime: the default of every call that names no runtime.

It is the value of a context variable where that is set, otherwise the only runtime that is open in
the running event loop. The second rule serves web frameworks, which run requests in tasks that
don't inherit the context of the app's lifespan.

The client that ``@handler`` puts on a class calls a runtime, which is above it in the order of
imports. So this module declares the part of a runtime that the client needs.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any, Protocol

from .._errors import NoRuntime


class Dispatcher(Protocol):
    """The part of a runtime, or of one of its tenants, that a class's generated client uses."""

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


runtime_var: ContextVar[Dispatcher | None] = ContextVar("trio_durable.runtime", default=None)
missed_var: ContextVar[list[Exception] | None] = ContextVar("trio_durable.missed", default=None)
"""Where the errors of code that needs a runtime are noted, for `perform_handler`."""
_open: dict[object, list[Dispatcher]] = {}


def register(loop: object, runtime: Dispatcher) -> None:
    """Add ``runtime`` to the open ones of the event loop with the token ``loop``."""
    _open.setdefault(loop, []).append(runtime)


def unregister(loop: object, runtime: Dispatcher) -> None:
    """Remove ``runtime`` from the open ones of ``loop``, if it is among them."""
    runtimes = _open.get(loop, [])
    if runtime in runtimes:
        runtimes.remove(runtime)
    if not runtimes:
        _open.pop(loop, None)


def runtime_for(loop: object) -> Dispatcher:
    """The current runtime of a caller that runs in ``loop``.

    Raises:
        NoRuntime: None is open in this event loop, or several and the context names none.
    """
    runtimes = _open.get(loop, [])
    named = runtime_var.get(None)
    if named is not None and named.root in runtimes:
        return named
    if len(runtimes) != 1:
        error = NoRuntime(len(runtimes))
        missed = missed_var.get(None)
        if missed is not None:
            missed.append(error)
        raise error
    return runtimes[0]
