"""Instruments: user code that observes the work of a runtime."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeAlias

import attrs

from .._telemetry.events import (
    Activated,
    Audited,
    DeadLettered,
    Entered,
    Hibernated,
    Left,
    MessageBuried,
    MessageSent,
    Stale,
    Timed,
    Woken,
)

if TYPE_CHECKING:
    from .runtime import DurableRuntime


@attrs.frozen(eq=False)
class Opened:
    """A runtime has opened."""

    runtime: DurableRuntime


@attrs.frozen(eq=False)
class Closed:
    """A runtime has closed its storage."""

    runtime: DurableRuntime


Point: TypeAlias = (
    Opened
    | Closed
    | Entered
    | Activated
    | Hibernated
    | Woken
    | Left
    | Stale
    | DeadLettered
    | MessageSent
    | MessageBuried
    | Audited
)
"""Events without a duration."""


class Instrument:
    """Observer of a runtime's work. Derive from it and override the methods you need.

    ::

        class Slowest(Instrument):
            longest = 0.0

            def on_stop(self, event: Timed, duration: float) -> None:
                if isinstance(event, Turn) and duration > self.longest:
                    self.longest = duration
                    print(f"{event.handler} of {event.key}: {duration:.3f} s")


        DurableRuntime("app.db", instruments=[Slowest()])

    All methods are called in the thread of the runtime's event loop, and must neither block nor
    call objects. An exception in one is logged with its traceback, and the instrument is detached;
    the runtime continues.

    An event starts and ends in one context, so context variables can be set at its start and reset
    at its end, and all code in between sees them:

    - `Call`: in the caller's task and context.
    - `Turn`: in its caller's context, or a copy of it from the moment of the call; a turn of
      ``after_load`` in the context of the first call. Both ``def`` and ``async def`` handlers run
      in that context, in an unspecified task.
    - `Load`: in the context of the first call that waits for it.
    - `AlarmDelivery`, `MessageDelivery`: in a context of its own, in which its turn runs.
    - `Commit` and its changes: in an unspecified task and context.

    A point comes in the context of the code that causes it.
    """

    def on_start(self, event: Timed) -> None:
        """An event begins."""

    def on_stop(self, event: Timed, duration: float) -> None:
        """An event ended well, ``duration`` seconds after it began by the event loop's clock."""

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """An event failed. If it was cancelled, ``error`` is the event loop's own exception."""

    def on_event(self, event: Point) -> None:
        """A point happened."""

    def inject(self, carrier: dict[str, str]) -> None:
        """A call is sent to another process of a cluster, or an object sends a message.

        In the context of the `Call`, or of the `Turn` that sends. For a message, `MessageSent` has
        the result, if the turn is committed.

        Args:
            carrier: Takes what identifies the trace there, short texts by their names.
        """

    def extract(self, carrier: Mapping[str, str]) -> AbstractContextManager[object]:
        """A call of another process is accepted within the block; its `Turn` has that context.

        Args:
            carrier: What `inject` has given there.
        """
        return nullcontext()
