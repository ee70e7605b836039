"""Streams of events as responses of Quart-Trio, and of Quart."""

from __future__ import annotations

from quart import Response
from quart.wrappers.response import IterableBody

from ._event_stream import EventStream

__all__ = ["event_stream_response"]


async def event_stream_response(stream: EventStream) -> Response:
    """An `EventStream` as a response of Quart.

    It has no ``RESPONSE_TIMEOUT``; the stream's ``max_age`` ends it.
    """
    status = await stream.status()
    if status != 200:
        return Response(None, status, {"Cache-Control": "no-store"})
    response = Response(IterableBody(stream.chunks()), status, stream.headers)
    response.timeout = None
    return response
