"""Detection of the event loop that runs the caller.

A library that isn't imported can't run a loop. So trio and asyncio are looked up among the imported
modules, and a backend is imported with the first runtime that needs it: ``import trio_durable``
pays for neither, which is a quarter of its time.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

from .._errors import WrongEventLoop
from .loop import Loop


def running_loop() -> Loop:
    """The event loop that runs the caller.

    Raises:
        WrongEventLoop: None does.
    """
    if _in_trio_task():
        from .trio import TrioLoop

        return TrioLoop()
    if _running_asyncio_loop() is not None:
        from .asyncio import AsyncioLoop

        return AsyncioLoop()
    raise WrongEventLoop(f"no event loop runs in thread {threading.current_thread().name!r}")


def running_loop_token() -> object:
    """The `Loop.token` of the running loop; None where none runs."""
    if _in_trio_task():
        from trio.lowlevel import current_trio_token

        return current_trio_token()
    return _running_asyncio_loop()


def _in_trio_task() -> bool:
    # The attribute is missing while another thread still imports trio.
    in_trio_task: Callable[[], bool] | None = getattr(
        sys.modules.get("trio.lowlevel"), "in_trio_task", None
    )
    return in_trio_task is not None and in_trio_task()


def _running_asyncio_loop() -> object:
    get_running_loop: Any = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return None if get_running_loop is None else get_running_loop()
