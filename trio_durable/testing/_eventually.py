"""Polling for a condition that becomes true in the background."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import anyio

from .._durations import Duration, seconds


async def assert_eventually(
    condition: Callable[[], object], *, timeout: Duration = 5, interval: Duration = 0.05
) -> None:
    """Poll ``condition`` until it holds.

    Times are those of the event loop, so under a virtual clock polling takes no real time.

    Args:
        condition: A ``def`` or ``async def`` function. It holds when its result is true. It doesn't
            hold yet when it raises an `AssertionError`.
        timeout: The longest time to poll; a ``timedelta`` or seconds. ``condition`` is called at
            least once.
        interval: The time between two calls, more than 0; a ``timedelta`` or seconds.

    Raises:
        AssertionError: ``condition`` didn't hold in time.
        Exception: Any other error that ``condition`` raised.
    """
    limit, pause = seconds(timeout, "timeout"), seconds(interval, "interval")
    if not pause:
        raise ValueError("interval must be more than 0, or no time would pass between two calls")
    if not callable(condition):
        raise TypeError(
            f"condition must be a function that is called repeatedly, not {condition!r:.80}"
        )
    deadline = anyio.current_time() + limit
    while True:
        failure: AssertionError | None = None
        value: object = None
        try:
            value = condition()
            if inspect.isawaitable(value):
                value = await value
            if value:
                return
        except AssertionError as error:
            failure = error
        left = deadline - anyio.current_time()
        if left <= 0:
            name = getattr(condition, "__qualname__", repr(condition))
            found = f"it returned {value!r:.200}" if failure is None else f"it raised: {failure}"
            raise AssertionError(
                f"expected {name} to hold within {limit:g} s; at the last call {found}"
            ) from failure
        await anyio.sleep(min(pause, left))
