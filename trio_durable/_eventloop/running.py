"""Detection of the event loop that runs the caller."""

from __future__ import annotations

import asyncio
import threading

from trio.lowlevel import current_trio_token, in_trio_task

from .._errors import WrongEventLoop
from .asyncio import AsyncioLoop
from .loop import Loop
from .trio import TrioLoop


def running_loop() -> Loop:
    """The event loop that runs the caller.

    Raises:
        WrongEventLoop: None does.
    """
    if in_trio_task():
        return TrioLoop()
    try:
        return AsyncioLoop()
    except RuntimeError:
        raise WrongEventLoop(
            f"no event loop runs in thread {threading.current_thread().name!r}"
        ) from None


def running_loop_token() -> object:
    """The `Loop.token` of the running loop; None where none runs."""
    if in_trio_task():
        return current_trio_token()
    return asyncio._get_running_loop()
