"""Live updates: the parts of a page that have changed, as server-sent events.

A stream renders its page again and sends the blocks whose text is another one. So what a stream
may show is what its page may show, by the same code: rights, tenants and redaction included.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio

from ._rendering import live_blocks
from ._view import Refused, Rendered, View

INTERVAL_SECONDS = 1.0
"""The time between two looks. A page that gets changes looks at most five times a second."""
FAST_SECONDS = 0.2
_KEEP_ALIVE_SECONDS = 10.0
_MAX_SECONDS = 600.0


async def events(
    make: Callable[[View], Awaitable[Rendered]],
    data_of: Callable[[View, Rendered], dict[str, Any]],
    renewed: Callable[[], Awaitable[View | None]],
    wait: Callable[[float], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """The events of one stream.

    Args:
        make: Makes the page.
        data_of: Its data for the template.
        renewed: Asks the app again whether the user may see the page; None if not.
        wait: Returns after so many seconds, or when something has changed; False at the app's end.
    """
    sent: dict[str, str] = {}
    view = await renewed()
    began = alive = anyio.current_time()
    yield b"retry: 2000\n\n"
    while view is not None:
        try:
            rendered = await make(view)
        except Refused:
            return
        blocks = live_blocks(rendered.template, data_of(view, rendered))
        for name, text in blocks.items():
            if sent.get(name) != text:
                sent[name] = text
                alive = anyio.current_time()
                yield _event(name, text)
        now = anyio.current_time()
        if now - alive >= _KEEP_ALIVE_SECONDS:
            alive = now
            yield b": here\n\n"
        if now - began >= _MAX_SECONDS:
            return
        await anyio.sleep(FAST_SECONDS)
        if not await wait(INTERVAL_SECONDS - FAST_SECONDS):
            return
        view = await renewed()


def _event(name: str, text: str) -> bytes:
    # Each kind of line break of the format would end a line of data.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    data = "\n".join(f"data: {line}" for line in lines)
    return f"event: {name}\n{data}\n\n".encode("utf-8", "replace")
