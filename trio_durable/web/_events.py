"""Server-sent events: the text of each, as the HTML standard defines ``text/event-stream``.

A client gathers the ``data`` lines of an event, joins them by newlines, and dispatches the event at
an empty line, unless it has no data. A line that begins with a colon is a comment.
"""

from __future__ import annotations

import re

_LINE_END = re.compile(rb"\r\n|\r|\n")

KEEP_ALIVE = b":\n\n"
"""A comment, which clients ignore."""


def event(data: bytes, *, name: str | None = None, event_id: str | None = None) -> bytes:
    """An event.

    Args:
        data: Its data, in UTF-8. The client gets each line end as a newline.
        name: Its name; without one it is a ``message``.
        event_id: The id that the client sends as ``Last-Event-ID`` when it reconnects.
    """
    lines = [] if name is None else [b"event: " + name.encode()]
    lines += [b"data: " + line for line in _LINE_END.split(data)]
    if event_id is not None:
        lines.append(b"id: " + event_id.encode())
    return b"\n".join(lines) + b"\n\n"


def reconnect_after(seconds: float) -> bytes:
    """How long the client waits before it reconnects, once the stream has ended."""
    return b"retry: %d\n\n" % round(seconds * 1000)
