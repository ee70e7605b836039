"""Waiting for what comes true by itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import anyio

from .._durations import Duration, seconds


async def assert_eventually(
    condition: Callable[[], object], *, timeout: Duration = 5, interval: Duration = 0.05
) -> None:
    """Return as soon as ``condition`` holds; it is tried again and again.

    Time is the event loop's, so under a virtual clock the waiting costs nothing.

    Args:
        condition: A ``def`` or ``async def`` function. It holds when its result is true; one that
            raises `AssertionError` doesn't hold yet.
        timeout: How long to go on; a ``timedelta`` or seconds. It is tried once at the least.
        interval: The time between two tries, more than 0.

    Raises:
        AssertionError: It didn't hold in time.
        Exception: Whatever else ``condition`` raised.
    """
    limit, pause = seconds(timeout, "timeout"), seconds(interval, "interval")
    if not pause:
        raise ValueError("interval must be more than 0, or no time would pass between the tries")
    if not callable(condition):
        raise TypeError(
            f"condition must be a function, to be called again and again, not {condition!r:.80}"
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
                f"expected {name} to hold within {limit:g} s; at the last try {found}"
            ) from failure
        await anyio.sleep(min(pause, left))
