"""Instruments: user code that observes the work of a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from .._telemetry.events import (
    Activated,
    DeadLettered,
    Entered,
    Hibernated,
    Left,
    Stale,
    Timed,
    Woken,
)

if TYPE_CHECKING:
    from .runtime import DurableRuntime


@attrs.frozen(eq=False)
class Opened:
    """A runtime is open."""

    runtime: DurableRuntime


@attrs.frozen(eq=False)
class Closed:
    """A runtime has closed its storage."""

    runtime: DurableRuntime


Point: TypeAlias = (
    Opened | Closed | Entered | Activated | Hibernated | Woken | Left | Stale | DeadLettered
)
"""Events that have no duration."""


class Instrument:
    """Is told what a runtime does. Derive from it and override what you need.

    ::

        class Slowest(Instrument):
            longest = 0.0

            def on_stop(self, event: Timed, duration: float) -> None:
                if isinstance(event, Turn) and duration > self.longest:
                    self.longest = duration
                    print(f"{event.handler} of {event.key}: {duration:.3f} s")


        DurableRuntime("app.db", instruments=[Slowest()])

    All methods are called in the thread of the runtime's event loop, and must neither block nor
    call objects. One that raises is logged with its traceback, and its instrument is told nothing
    more; the runtime goes on.

    An event starts and ends in one context, so context variables can be set at its start and reset
    at its end, and what runs in between sees them:

    - `Call`: in the caller's task and context.
    - `Turn`: in its caller's context, or a copy that was made when it called; of ``after_load``,
      the context of the first call. The handler runs in it, be it ``def`` or ``async def``, though
      in which task isn't said.
    - `Load`: in the context of the first call that waits for it.
    - `AlarmDelivery`: in a context of its own, in which its turn runs.
    - `Commit` and what is in it: in no particular task or context.

    Points come in the context of whatever makes them happen.
    """

    def on_start(self, event: Timed) -> None:
        """Something begins."""

    def on_stop(self, event: Timed, duration: float) -> None:
        """What began has ended well, after ``duration`` seconds by the event loop's clock."""

    def on_exception(self, event: Timed, duration: float, error: BaseException) -> None:
        """What began has failed, or was cancelled: then ``error`` is the loop's own."""

    def on_event(self, event: Point) -> None:
        """Something is the case now."""
