"""Turns: one handler at a time runs on an object's state, and its outcome is a value or an error.

A ``def`` turn can't be interrupted, so it needs no task: it runs in the task that finds the object
idle. An ``async def`` turn runs in the object's worker, in the caller's context variables. Neither
replies to anyone; an outcome is handed out by the activation, behind the gate.
"""

from __future__ import annotations

from collections.abc import Coroutine
from contextvars import Context
from typing import Any, TypeAlias

import anyio

from .._declarations.records import HandlerDefinition
from .._errors import (
    AlarmSuperseded,
    ArgumentError,
    HandlerCancelled,
    PersistenceError,
    ReadonlyViolation,
    ReplyError,
)
from .._eventloop.current import Dispatcher, runtime_var
from .effects import Effects
from .envelope import Envelope
from .state import ObjectState
from .wait_graph import DEF_TURN, Turn, current_turn
from .worker import InContext

Outcome: TypeAlias = tuple[object, BaseException | None]
"""The value of a turn, or the error that its caller gets instead."""


def run_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    handler: HandlerDefinition,
    args: tuple[object, ...],
    kwargs: dict[str, object],
) -> object:
    """Run a ``def`` handler here and now. The object must have a live instance and no other turn.

    Raises:
        Exception: The handler's error, or the reason why its changes were refused. Nothing of the
            turn is left then.
    """
    state.turn = DEF_TURN
    # Unless the caller is in it already, which is likely and costs nothing then.
    entered = runtime_var.get(None) is runtime or runtime_var.set(runtime)
    try:
        result = handler.function(state.instance, *args, **kwargs)
    except BaseException as error:
        state.roll_back()
        explained = _explained(state, handler, error)
        if explained is not error:
            raise explained from error
        raise
    finally:
        state.turn = None
        if entered is not True:
            runtime_var.reset(entered)
    return state.end_turn(handler.name, handler.readonly, result)


def run_queued_turn(
    state: ObjectState, runtime: Dispatcher | None, handler: HandlerDefinition, envelope: Envelope
) -> object:
    """`run_turn` for a request from the mailbox, which may be an alarm."""
    if envelope.delivery is not None:
        state.effects = Effects(envelope.delivery)
    return run_turn(state, runtime, handler, envelope.args, envelope.kwargs)


async def run_async_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    turn: Turn,
    handler: HandlerDefinition,
    envelope: Envelope,
) -> Outcome:
    """Run an ``async def`` handler in its caller's context.

    Raises:
        BaseException: The turn was interrupted: the runtime's cancellation, or Control-C.
    """
    if envelope.delivery is not None:
        state.effects = Effects(envelope.delivery)
    try:
        coroutine = handler.function(state.instance, *envelope.args, **envelope.kwargs)
        result = await _in_turn(state, runtime, turn, envelope.context, coroutine)
        if turn.base_lost:
            raise state.base_lost()
        return state.end_turn(handler.name, handler.readonly, result), None
    except Exception as error:  # noqa: BLE001  # handlers may raise anything
        state.roll_back()
        if turn.base_lost:
            if isinstance(error, PersistenceError):
                return None, error
            lost = state.base_lost()
            lost.__cause__ = error
            return None, lost
        if isinstance(error, (ReplyError, ReadonlyViolation, AlarmSuperseded)):
            return None, error
        explained = _explained(state, handler, error)
        if explained is not error:
            explained.__cause__ = error
        return None, explained
    except BaseException:
        state.roll_back()
        raise


def run_after_load(state: ObjectState, runtime: Dispatcher | None) -> None:
    """Run a ``def`` ``after_load``. The caller is in the context of the first call.

    Raises:
        Exception: The hook's error, or the reason why its changes were refused.
    """
    runtime_var.set(runtime)
    state.turn = DEF_TURN
    hook = state.object_type.after_load
    assert hook is not None
    try:
        result = hook(state.instance)
    except anyio.get_cancelled_exc_class() as error:
        raise HandlerCancelled(state.key, "after_load") from error
    finally:
        state.turn = None
    if isinstance(result, Coroutine):
        result.close()
        raise TypeError("it returned a coroutine; write it with async def")
    state.end_turn("after_load", False, None)


async def run_async_after_load(
    state: ObjectState, runtime: Dispatcher | None, turn: Turn, context: Context
) -> Outcome:
    """Run an ``async def`` ``after_load``, in the context of the first call.

    Raises:
        BaseException: The turn was interrupted: the runtime's cancellation, or Control-C.
    """
    hook = state.object_type.after_load
    assert hook is not None
    try:
        await _in_turn(state, runtime, turn, context, hook(state.instance))
        if turn.base_lost:
            raise state.base_lost()
        return state.end_turn("after_load", False, None), None
    except Exception as error:  # noqa: BLE001  # after_load may raise anything
        state.roll_back()
        return None, error
    except BaseException:
        state.roll_back()
        raise


async def _in_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    turn: Turn,
    context: Context,
    coroutine: Coroutine[Any, Any, object],
) -> object:
    state.turn = turn
    context.run(current_turn.set, turn)
    context.run(runtime_var.set, runtime)
    try:
        return await InContext(coroutine, context)
    finally:
        state.turn = turn.node = None


def _explained(
    state: ObjectState, handler: HandlerDefinition, error: BaseException
) -> BaseException:
    """A handler's error, with a note; or ours, if the call itself was wrong."""
    trace = error.__traceback__
    if isinstance(error, TypeError) and trace is not None and trace.tb_next is None:
        # Raised by calling the handler, not inside of it.
        problem = str(error).replace(f"{handler.function.__qualname__}()", "it", 1)
        return ArgumentError(state.key, handler.name, f"{problem}; it takes {handler.signature}")
    if isinstance(error, anyio.get_cancelled_exc_class()):
        # A ``def`` can't be cancelled; it must have touched something that was.
        return HandlerCancelled(state.key, handler.name)
    if isinstance(error, Exception):
        error.add_note(f"in {handler.name} on {state.key}; its turn was rolled back")
    return error
