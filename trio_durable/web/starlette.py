"""Streams of events as responses of Starlette, for FastAPI and for middleware that expects them.

An endpoint of Starlette itself may return an `EventStream` as it is.
"""

from __future__ import annotations

from starlette.background import BackgroundTask
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from ._event_stream import EventStream

__all__ = ["EventStreamResponse"]


class EventStreamResponse(Response):
    """An `EventStream` as a response of Starlette or FastAPI.

    Headers and cookies that are set on it are sent with those of the stream.
    """

    def __init__(self, stream: EventStream) -> None:
        self.stream = stream
        self.status_code = 200
        self.body = b""
        self.background: BackgroundTask | None = None
        self.raw_headers: list[tuple[bytes, bytes]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, and then run the background task, if there is one."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *self.raw_headers]
            await send(message)

        await self.stream(scope, receive, send_with_headers)
        if self.background is not None:
            await self.background()
