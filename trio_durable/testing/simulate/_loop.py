"""An event loop that stands still between two steps of a test, in time that the test lets pass.

Hypothesis draws in synchronous code, and the objects run in a real event loop. So the loop is the
guest here and the test is its host: trio's guest mode hands over its ticks as callbacks, which run
when the test says so and at no other time. In between the process is frozen, and can be looked at.

Prior art: trio's guest mode, made for loops of user interfaces; `trio.testing.MockClock`; the
deterministic simulation of FoundationDB.

Invariants:

- the loop never waits: its clock says of every deadline that it is now, so that a tick only polls;
- it is settled when nothing ran in two ticks, one after the other. One would not do: what was
  submitted from outside comes by way of a socket, which is looked at when a tick ends.
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

_MOST_TICKS = 10_000


class _Clock(trio.abc.Clock):
    """Says what time it is, and overhears until when the loop would wait."""

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


class _Watch(trio.abc.Instrument):
    """Notes that something ran."""

    def __init__(self) -> None:
        self.ran = False

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.ran = True


class SteppedLoop:
    """A trio run that goes on only inside of `settle`.

    Args:
        main: What it runs.
        now: What its clock says when it starts, in seconds.
    """

    def __init__(self, main: Callable[[], Awaitable[object]], now: float) -> None:
        self._clock = _Clock(now)
        self._watch = _Watch()
        self._ticks: deque[Callable[[], object]] = deque()
        self._token: trio.lowlevel.TrioToken | None = None
        self.outcome: Outcome[object] | None = None
        """What ``main`` came to, when the run is over."""

        async def run() -> object:
            self._token = trio.lowlevel.current_trio_token()
            return await main()

        trio.lowlevel.start_guest_run(
            run,
            run_sync_soon_threadsafe=self._ticks.append,
            done_callback=self._done,
            # Nothing but ticks would look at that.
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
        """When something happens by itself, as of the last `settle`."""
        return self._clock.next_deadline

    def advance(self, now: float) -> None:
        """Let the clock say ``now``. What is due then happens in the next `settle`."""
        self._clock.now = now

    def call_soon(self, callback: Callable[[*Ts], object], *args: *Ts) -> None:
        """Let ``callback`` run in the loop."""
        if self._token is None:
            self.settle()
        assert self._token is not None
        self._token.run_sync_soon(callback, *args)

    def abandon(self) -> None:
        """Be rid of the run although its tasks don't end. Python will complain about them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # trio's, which is right in general
            self._ticks.clear()

    def settle(self, goes_on: Callable[[], bool] = lambda: True) -> None:
        """Return when nothing goes on by itself any more until time passes.

        Args:
            goes_on: Asked after each tick; if it says no, that was the last one.

        Raises:
            AssertionError: It never settles.
        """
        ticks, watch, clock = self._ticks, self._watch, self._clock
        empty = 0
        for _ in range(_MOST_TICKS):
            if empty == 2 or self.outcome is not None:
                return
            watch.ran = False
            clock.next_deadline = -math.inf  # unless the clock is asked, somebody is ready to run
            ticks.popleft()()
            if not goes_on():
                return
            empty = empty + 1 if not watch.ran and clock.next_deadline > clock.now else 0
        raise AssertionError(
            f"the event loop went round {_MOST_TICKS} times without time passing, and would go on; "
            "look for a loop in a handler that waits for nothing"
        )
