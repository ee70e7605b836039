"""Turns: one handler at a time runs on an object's state, and its outcome is a value or an error.

A ``def`` turn can't be interrupted, so it needs no task: it runs in the task that finds the object
idle. An ``async def`` turn runs in the object's worker, in the caller's context variables. Neither
replies to anyone; an outcome is handed out by the activation, behind the gate.

No frame here refers to an error when it is left: an error refers to the frames of its traceback, so
that would be a cycle, which keeps the arguments of a failed call until the collector comes by.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any, TypeAlias

from .._declarations.records import HandlerDefinition
from .._errors import PersistenceError
from .._eventloop.current import Dispatcher, runtime_var
from .envelope import Envelope
from .exchange import Replies
from .in_context import InContext
from .raised import replacement, with_cause, without_cancellation
from .state import ObjectState
from .wait_graph import DEF_TURN, Turn, base_lost_error, current_turn

Outcome: TypeAlias = tuple[object, BaseException | None]
"""The value of a turn, or the error that its caller gets instead."""


def run_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    handler: HandlerDefinition,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    replies: Replies | None = None,
) -> object:
    """Run a ``def`` handler here and now. The object must have a live instance and no other turn.

    For ``replies`` see `ObjectState.end_turn`.

    Raises:
        BaseException: The handler's error, or the reason why its changes were refused. Nothing of
            the turn is left then.
    """
    state.turn = DEF_TURN
    # Unless the caller is in it already, which is likely and costs nothing then.
    entered = runtime_var.get(None) is runtime or runtime_var.set(runtime)
    origin = None if handler.readonly else current_turn.set(state)  # for tasks that it starts
    try:
        result = handler.function(state.instance, *args, **kwargs)
        if state.turn is not DEF_TURN:  # the event loop ran
            state.check_base()
        return state.end_turn(handler.name, handler.readonly, result, replies)
    except BaseException as error:
        state.roll_back()
        ours = replacement(state.key, handler, error)
        if ours is not None:
            try:
                raise ours from error
            finally:
                del ours  # or the error, its traceback and this frame would be a cycle
        raise
    finally:
        if state.turn is DEF_TURN:
            state.turn = None
        else:
            state.end_awaited_turn()
        if origin is not None:
            current_turn.reset(origin)
        if entered is not True:
            runtime_var.reset(entered)


def run_queued_turn(
    state: ObjectState, runtime: Dispatcher | None, handler: HandlerDefinition, envelope: Envelope
) -> object:
    """`run_turn` for a request from the mailbox, which may be an alarm or a message."""
    state.effects = envelope.begin()
    args, kwargs = envelope.args, envelope.kwargs
    return run_turn(state, runtime, handler, args, kwargs, envelope.replies)


async def run_async_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    turn: Turn,
    handler: HandlerDefinition,
    envelope: Envelope,
    step: Callable[..., Any],
    cancelled: Callable[[], BaseException] | None = None,
) -> Outcome:
    """Run an ``async def`` handler in its caller's context.

    Args:
        state: The object's state, with a live instance.
        runtime: The runtime as the object sees it.
        turn: The turn.
        handler: The handler.
        envelope: The request.
        step: See `Loop.interruptible`.
        cancelled: See `replacement`.

    Returns:
        The reply, or the error that the handler raised, whatever it is.
    """
    state.effects = envelope.begin()
    turn.is_once = envelope.once is not None
    try:
        coroutine = handler.function(state.instance, *envelope.args, **envelope.kwargs)
        result = await _in_turn(state, runtime, turn, envelope.context, coroutine, step)
        if turn.base_lost:
            raise base_lost_error(state.key)
        if turn.interruption is not None:
            state.roll_back()
            return None, turn.interruption.error()
        return state.end_turn(handler.name, handler.readonly, result, envelope.replies), None
    except GeneratorExit:  # the event loop was dropped
        state.roll_back()
        raise
    except BaseException as error:  # noqa: BLE001  # handlers may raise anything
        state.roll_back()
        return None, _failure(state, turn, handler, error, cancelled)
    finally:
        state.turn = None
        turn.end()


def _failure(
    state: ObjectState,
    turn: Turn,
    handler: HandlerDefinition,
    error: BaseException,
    cancelled: Callable[[], BaseException] | None,
) -> BaseException:
    """The error that the caller of a turn gets which has raised ``error``."""
    if turn.base_lost and not isinstance(error, PersistenceError):
        return with_cause(base_lost_error(state.key), error)
    return _replaced(turn, error, replacement(state.key, handler, error, cancelled))


def _replaced(turn: Turn, error: BaseException, ours: BaseException | None) -> BaseException:
    """``error``, or the one in its place: ``ours`` if there is one, or that of an interruption."""
    if turn.interruption is not None and isinstance(error if ours is None else ours, Exception):
        ours = turn.interruption.error()
    return error if ours is None else with_cause(ours, error)


def run_after_load(state: ObjectState, runtime: Dispatcher | None) -> None:
    """Run a ``def`` ``after_load``. The caller is in the context of the first call.

    Raises:
        BaseException: The hook's error, or the reason why its changes were refused.
    """
    runtime_var.set(runtime)
    state.turn = DEF_TURN
    hook = state.object_type.after_load
    assert hook is not None
    try:
        result = hook(state.instance)
        if isinstance(result, Coroutine):
            result.close()
            raise TypeError("it returned a coroutine; write it with async def")
        if state.turn is not DEF_TURN:
            state.check_base()
        state.refuse_sends()
        state.end_turn("after_load", False, None)
    except BaseException as error:
        ours = without_cancellation(state.key, "after_load", error)
        if ours is None:
            raise
        try:
            raise ours from error
        finally:
            del ours
    finally:
        if state.turn is DEF_TURN:
            state.turn = None
        else:
            state.end_awaited_turn()


async def run_async_after_load(
    state: ObjectState,
    runtime: Dispatcher | None,
    turn: Turn,
    context: Context,
    step: Callable[..., Any],
    cancelled: Callable[[], BaseException] | None = None,
) -> Outcome:
    """Run an ``async def`` ``after_load``, in the context of the first call.

    Returns:
        None, or the error that the hook raised, whatever it is.
    """
    hook = state.object_type.after_load
    assert hook is not None
    try:
        await _in_turn(state, runtime, turn, context, hook(state.instance), step)
        if turn.base_lost:
            raise base_lost_error(state.key)
        if turn.interruption is not None:
            state.roll_back()
            return None, turn.interruption.error()
        state.refuse_sends()
        return state.end_turn("after_load", False, None), None
    except GeneratorExit:
        state.roll_back()
        raise
    except BaseException as error:  # noqa: BLE001  # after_load may raise anything
        state.roll_back()
        return None, _replaced(
            turn, error, without_cancellation(state.key, "after_load", error, cancelled)
        )
    finally:
        state.turn = None
        turn.end()


async def _in_turn(
    state: ObjectState,
    runtime: Dispatcher | None,
    turn: Turn,
    context: Context,
    coroutine: Coroutine[Any, Any, object],
    step: Callable[..., Any],
) -> object:
    state.turn = turn
    context.run(current_turn.set, turn)
    context.run(runtime_var.set, runtime)
    try:
        return await InContext(coroutine, context, step)
    finally:
        # From here to the commit nothing else runs; but `ctx` isn't the turn's any more.
        state.turn = None
