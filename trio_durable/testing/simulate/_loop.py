"""Stepped event loop: stands still between the steps of a test, and runs in virtual time.

Hypothesis draws in synchronous code, but objects run in a real event loop. So the test hosts the
loop: in guest mode, Trio passes its ticks to the host as callbacks, which run inside of `settle`
only. Between two steps the process is frozen and can be inspected.

Prior art: Trio's guest mode, made for the event loops of user interfaces; `trio.testing.MockClock`;
the deterministic simulation of FoundationDB.

Invariants:

- The loop never blocks: its clock reports every deadline as reached, so a tick only polls.
- The loop has settled when no task ran in two successive ticks. One tick isn't enough: a callback
  from outside arrives over a socket, which the loop polls at the end of a tick.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVarTuple

import trio

if TYPE_CHECKING:
    from outcome import Outcome

Ts = TypeVarTuple("Ts")

_MAX_TICKS = 10_000


class _Clock(trio.abc.Clock):
    """Virtual clock. Records the next deadline, which the loop passes to it."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.next_deadline = math.inf

    def start_clock(self) -> None:
        pass

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        self.next_deadline = deadline
        return 0.0


class _StepWatch(trio.abc.Instrument):
    """Records that a task ran."""

    def __init__(self) -> None:
        self.ran = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.ran = True


class SteppedLoop:
    """A Trio run that makes progress inside of `settle` only.

    Args:
        main: The main task.
        now: The time of its clock at the start, in seconds.
    """

    def __init__(self, main: Callable[[], Awaitable[object]], now: float) -> None:
        self._clock = _Clock(now)
        self._watch = _StepWatch()
        self._ticks: deque[Callable[[], object]] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self.outcome: Outcome[object] | None = None
        """The outcome of ``main`` once the run has ended."""

        async def run() -> object:
            self._token = trio.lowlevel.current_trio_token()
            return await main()

        trio.lowlevel.start_guest_run(
            run,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._done,
            # Trio would only look at the wakeup fd in a tick.
            host_uses_signal_set_wakeup_fd=True,
            clock=self._clock,
            instruments=[self._watch],
        )

    def _done(self, outcome: Outcome[object]) -> None:
        self.outcome = outcome

    @property
    def now(self) -> float:
        """The loop's time, in seconds."""
        return self._clock.now

    @property
    def next_deadline(self) -> float:
        """The time at which the next timer expires, as of the last `settle`."""
        return self._clock.next_deadline

    def advance(self, now: float) -> None:
        """Set the clock to ``now``. Timers that have expired by then run in the next `settle`."""
        self._clock.now = now

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Schedule ``callback`` in the loop."""
        if self._token is None:
            self.settle()
        assert self._token is not None
        self._token.run_sync_soon(callback, *args)

    def abandon(self) -> None:
        """Drop the run although its tasks haven't ended. Python will warn about them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # Trio's, which is right in general
            self._ticks.clear()

    def settle(self, may_continue: Callable[[], bool] = lambda: True) -> None:
        """Run ticks until no task can run before the next deadline.

        Args:
            may_continue: Called after each tick; False ends the run of ticks.

        Raises:
            AssertionError: The loop doesn't settle.
        """
        ticks, watch, clock = self._ticks, self._watch, self._clock
        idle_ticks = 0
        for _ in range(_MAX_TICKS):
            if idle_ticks == 2 or self.outcome is not None:
                return
            watch.ran = False
            clock.next_deadline = (
                -math.inf
            )  # stays so if tasks are ready: Trio doesn't ask the clock then
            ticks.popleft()()
            if not may_continue():
                return
            idle_ticks = idle_ticks + 1 if not watch.ran and clock.next_deadline > clock.now else 0
        raise AssertionError(
            f"the event loop hasn't settled after {_MAX_TICKS} ticks without time passing; look "
            "for a handler that loops without waiting"
        )
