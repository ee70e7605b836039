"""Exit signals: the end of watches when the server of an app is asked to stop.

Web servers close the app's lifespan, and the runtime in it, after the last response. A stream of
events never ends by itself, so they wait until their graceful timeout. None of them tells the app
before that it is to stop. But all have a handler of the signals that stop them, and the app can
have its own called first.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from types import FrameType

from .._api.runtime import DurableRuntime
from .._errors import RuntimeClosed
from .._eventloop.running import running_loop

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def end_watches_on_signals(runtime: DurableRuntime) -> Generator[None, None, None]:
    """End the runtime's watches on SIGINT and SIGTERM, and then do what these signals did before.

    For an app's lifespan, inside that of the runtime::

        async with DurableRuntime("app.db") as runtime:
            with end_watches_on_signals(runtime):
                yield

    A signal without a handler is left alone, unless it is ignored, as SIGINT is in the child
    processes of some servers. Outside of the main thread it does nothing, since Python handles
    signals there.

    Raises:
        WrongEventLoop: It is not entered in an event loop.
    """
    loop = running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end_watches(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(_end_watches, runtime)
        before = replaced[signal.Signals(number)]
        if callable(before):
            before(number, frame)

    replaced = {each: signal.getsignal(each) for each in _SIGNALS}
    replaced = {
        each: before
        for each, before in replaced.items()
        if callable(before) or (before is signal.SIG_IGN and each is signal.SIGINT)
    }
    for each in replaced:
        signal.signal(each, end_watches)
    try:
        yield
    finally:
        for each, before in replaced.items():
            if signal.getsignal(each) is end_watches:
                signal.signal(each, before)


def _end_watches(runtime: DurableRuntime) -> None:
    with suppress(RuntimeClosed):  # the runtime may have been left meanwhile
        runtime.end_watches()
