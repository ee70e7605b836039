"""Durable objects behind HTTP: statuses of errors, and streams of events for browsers.

`http_status` says how to answer a request whose call has raised. `sse` streams the states of
objects as server-sent events, and `end_watches_on_signals` ends these streams when the server is
asked to stop. The module imports no framework. `trio_durable.web.starlette` has the response for
FastAPI, and `trio_durable.web.quart` that for Quart-Trio.
"""

from ._event_stream import Authorize, EventStream, WebRequest, sse
from ._exit_signals import end_watches_on_signals
from ._renderings import View
from ._statuses import ErrorStatus, http_status

__all__ = [
    "Authorize",
    "ErrorStatus",
    "EventStream",
    "View",
    "WebRequest",
    "end_watches_on_signals",
    "http_status",
    "sse",
]
