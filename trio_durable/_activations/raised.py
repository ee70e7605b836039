"""Exceptions that handlers raise: from the exception of a turn to the error that its caller gets.

A handler may raise anything: exceptions that can't be changed, whose methods raise, groups of
errors and cancellations, a cancellation that isn't its own (a cache that stores exceptions), and
exceptions outside of `Exception`, such as those of pytest or of extension modules. Each is the
caller's, as it was raised. It must not end anything else, so it is touched here alone, and under
guard.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio

from .._declarations.records import HandlerDefinition
from .._errors import ArgumentError, DurableError, HandlerCancelled
from .._keys import ObjectKey


def replacement(
    key: ObjectKey,
    handler: HandlerDefinition,
    error: BaseException,
    cancelled: Callable[[], BaseException] | None = None,
) -> BaseException | None:
    """The error that a caller gets in place of ``error``; None if it gets that, which has a note.

    The caller sets the cause, so that nothing here refers to the error.

    Args:
        key: The object.
        handler: The handler.
        error: The exception that it raised.
        cancelled: Makes the error for a cancellation, if that isn't the handler's own affair.
    """
    trace = error.__traceback__
    if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
        # Raised by calling the handler, not inside of it.
        problem = str(error).replace(f"{handler.function.__qualname__}()", "it", 1)
        return ArgumentError(key, handler.name, f"{problem}; it takes {handler.signature}")
    uncancelled = without_cancellation(key, handler.name, error, cancelled)
    if uncancelled is None and isinstance(error, Exception):
        names_it = isinstance(error, DurableError) and getattr(error, "key", None) == key
        if not names_it:
            add_note(error, f"in {handler.name} on {key}; its turn was rolled back")
    return uncancelled


def without_cancellation(
    key: ObjectKey,
    name: str,
    error: BaseException,
    cancelled: Callable[[], BaseException] | None = None,
) -> BaseException | None:
    """The error in place of a cancellation, alone or in a group; None if there is none.

    A cancellation belongs to one task. In the task of a caller it would be taken for the end of a
    scope that isn't cancelled.
    """
    cancellation = anyio.get_cancelled_exc_class()
    make = cancelled or partial(HandlerCancelled, key, name)
    if isinstance(error, cancellation):
        return make()
    if not isinstance(error, BaseExceptionGroup):
        return None
    try:
        found, others = error.split(cancellation)
    except Exception:  # noqa: BLE001  # a group whose `derive` raises
        return None
    if found is None:
        return None
    return make() if others is None else others


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, if it takes one and hasn't it yet."""
    try:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
    except Exception:  # noqa: BLE001, S110  # frozen, or with notes of its own kind: it has none then
        pass


def with_cause(error: BaseException, cause: BaseException) -> BaseException:
    """``error`` with a cause, unless it has one or refuses it."""
    try:
        if error is not cause and error.__cause__ is None:
            error.__cause__ = cause
    except Exception:  # noqa: BLE001, S110
        pass
    return error
