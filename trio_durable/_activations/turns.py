"""Turns: one handler at a time runs on an object's state, and its outcome is a value or an error.

A ``def`` turn can't be interrupted, so it needs no task: it runs in the task that finds the object
idle. An ``async def`` turn begins where its mailbox is served, as an ordinary call: the first step
of its coroutine. Only one that suspends needs a task of its own from there on, a worker. Neither
replies to anyone; an outcome is handed out by the activation, behind the gate.

No frame here refers to an error when it is left: an error refers to the frames of its traceback, so
that would be a cycle, which keeps the arguments of a failed call until the collector comes by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context
from typing import Any, TypeAlias

from .._declarations.records import HandlerDefinition
from .._errors import PersistenceError
from .._eventloop.current import Dispatcher, runtime_var
from .await_chain import AwaitedFrame, await_chain
from .envelope import Envelope
from .exchange import Replies
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


class AsyncTurn(ABC):
    """The turn of an ``async def`` function, in the context variables of its caller.

    `begin` takes its first step. If the turn hasn't ended by that, a task awaits it, once; what the
    coroutine has yielded is the first thing that this yields to the event loop. `take` returns the
    outcome then.

    Args:
        state: The object's state, with a live instance.
        runtime: The runtime as the object sees it.
        turn: The turn.
        function: The function.
        args: Its arguments.
        kwargs: Its keyword arguments.
        context: The caller's context variables.
        step: Calls a function with arguments, see `Loop.interruptible`.
        cancelled: Makes the error for a cancellation, see `replacement`.
    """

    __slots__ = (
        "_args",
        "_cancelled",
        "_coroutine",
        "_error",
        "_function",
        "_kwargs",
        "_runtime",
        "_state",
        "_step",
        "_value",
        "_yielded",
        "context",
        "turn",
    )

    was_stored = False
    """The object was stored before; for a turn of ``after_load``."""
    is_handlers = True
    """False if the turn is that of ``after_load``."""

    def __init__(
        self,
        state: ObjectState,
        runtime: Dispatcher | None,
        turn: Turn,
        function: Callable[..., Any],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        context: Context,
        step: Callable[..., Any],
        cancelled: Callable[[Turn], BaseException] | None,
    ) -> None:
        self.turn: Turn = turn
        self.context: Context = context
        self._state = state
        self._runtime = runtime
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._step = step
        self._cancelled = cancelled
        self._coroutine: Coroutine[Any, Any, object] | None = None
        self._yielded: object = None
        self._value: object = None
        self._error: BaseException | None = None

    def begin(self) -> bool:
        """Take the first step; return True if the turn has ended by it."""
        try:
            # Called in this frame, by which `replacement` knows arguments that don't fit.
            self._coroutine = self._function(*self._args, **self._kwargs)
            self._state.turn = self.turn
            try:
                self._yielded = self._step(self.context.run, self._first_step)
                return False
            except StopIteration as stop:
                value = stop.value
        except BaseException as error:  # noqa: BLE001  # handlers may raise anything
            self._fail(error)
        else:
            self._return(value)
        return True

    def _first_step(self) -> object:
        assert self._coroutine is not None
        current_turn.set(self.turn)
        runtime_var.set(self._runtime)
        return self._coroutine.send(None)

    def __await__(self) -> Generator[Any, Any, None]:
        step, run, coroutine = self._step, self.context.run, self._coroutine
        assert coroutine is not None
        yielded, self._yielded = self._yielded, None
        sent = None
        try:
            try:
                while True:
                    try:
                        sent = yield yielded
                    except BaseException as error:  # noqa: BLE001  # thrown by the event loop
                        yielded = step(run, coroutine.throw, error)
                    else:
                        yielded = step(run, coroutine.send, sent)
            except StopIteration as stop:
                value = stop.value
            finally:
                # Trio sends the outcome of a wait, which holds its exception. The frames in the
                # traceback of that hold this frame, so it must not hold the outcome.
                sent = yielded = None
        except GeneratorExit:  # the event loop was dropped
            self.abandon()
            raise
        except BaseException as error:  # noqa: BLE001
            self._fail(error)
        else:
            self._return(value)

    def take(self) -> Outcome:
        """The outcome: the reply, or the error that the function raised, whatever it is.

        The turn forgets it, or an error, the frames of its traceback and the turn would be a cycle.
        """
        value, error, self._value, self._error = self._value, self._error, None, None
        try:
            return value, error
        finally:
            del value, error

    def awaited(self) -> list[AwaitedFrame]:
        """The frames in which it waits."""
        return await_chain(self._coroutine)

    def abandon(self) -> None:
        """End it in the middle: its task has been cut off, or the event loop was dropped."""
        coroutine, self._coroutine = self._coroutine, None
        self._state.roll_back()
        self._state.turn = None
        self.turn.end()
        if coroutine is not None:
            coroutine.close()

    def _return(self, value: object) -> None:
        # From here to the commit nothing else runs; but `ctx` isn't the turn's any more.
        turn, self._state.turn = self.turn, None
        try:
            if turn.base_lost:
                raise base_lost_error(self._state.key)
            if turn.interruption is None:
                self._value = self._end(value)
            else:
                self._state.roll_back()
                self._error = turn.interruption.error()
        except BaseException as error:  # noqa: BLE001  # such as a state that can't be stored
            self._fail(error)
        else:
            turn.end()

    def _fail(self, error: BaseException) -> None:
        self._state.turn = None
        self._state.roll_back()
        try:
            if self.turn.base_lost and not isinstance(error, PersistenceError):
                self._error = with_cause(base_lost_error(self._state.key), error)
            else:
                self._error = _replaced(self.turn, error, self._replacement(error))
        finally:
            self.turn.end()
            del error

    @abstractmethod
    def _end(self, value: object) -> object:
        """Submit the turn's commit, and return its reply.

        Raises:
            BaseException: The reason why its changes were refused.
        """

    @abstractmethod
    def _replacement(self, error: BaseException) -> BaseException | None:
        """The error in place of the one that the function has raised. See `replacement`."""

    def _cancellation(self) -> Callable[[], BaseException] | None:
        cancelled, turn = self._cancelled, self.turn
        return None if cancelled is None else lambda: cancelled(turn)


class HandlerTurn(AsyncTurn):
    """The turn of an ``async def`` handler.

    Args:
        state: The object's state, with a live instance.
        runtime: The runtime as the object sees it.
        turn: The turn.
        handler: The handler.
        envelope: The request.
        step: See `Loop.interruptible`.
        cancelled: See `replacement`.
    """

    __slots__ = ("_handler", "_replies")

    def __init__(
        self,
        state: ObjectState,
        runtime: Dispatcher | None,
        turn: Turn,
        handler: HandlerDefinition,
        envelope: Envelope,
        step: Callable[..., Any],
        cancelled: Callable[[Turn], BaseException] | None = None,
    ) -> None:
        args = (state.instance, *envelope.args)
        super().__init__(
            *(state, runtime, turn, handler.function, args, envelope.kwargs),
            *(envelope.context, step, cancelled),
        )
        self._handler = handler
        self._replies = envelope.replies
        state.effects = envelope.begin()
        turn.is_once = envelope.once is not None

    def _end(self, value: object) -> object:
        handler = self._handler
        return self._state.end_turn(handler.name, handler.readonly, value, self._replies)

    def _replacement(self, error: BaseException) -> BaseException | None:
        return replacement(self._state.key, self._handler, error, self._cancellation())


class AfterLoadTurn(AsyncTurn):
    """The turn of an ``async def`` ``after_load``, in the context of the first call.

    Args:
        state: See `HandlerTurn`.
        runtime: See `HandlerTurn`.
        turn: See `HandlerTurn`.
        context: The context variables of the first call.
        step: See `HandlerTurn`.
        cancelled: See `HandlerTurn`.
    """

    __slots__ = ("was_stored",)

    is_handlers = False
    was_stored: bool

    def __init__(
        self,
        state: ObjectState,
        runtime: Dispatcher | None,
        turn: Turn,
        context: Context,
        step: Callable[..., Any],
        cancelled: Callable[[Turn], BaseException] | None = None,
    ) -> None:
        hook = state.object_type.after_load
        assert hook is not None
        args = (state.instance,)
        super().__init__(state, runtime, turn, hook, args, {}, context, step, cancelled)
        self.was_stored = state.is_stored

    def _end(self, value: object) -> object:
        self._state.refuse_sends()
        return self._state.end_turn("after_load", False, None)

    def _replacement(self, error: BaseException) -> BaseException | None:
        key = self._state.key
        return without_cancellation(key, "after_load", error, self._cancellation())


def _replaced(turn: Turn, error: BaseException, ours: BaseException | None) -> BaseException:
    """``error``, or the one in its place: ``ours`` if there is one, or that of an interruption."""
    if turn.interruption is not None and isinstance(error if ours is None else ours, Exception):
        ours = turn.interruption.error()
    return error if ours is None else with_cause(ours, error)
