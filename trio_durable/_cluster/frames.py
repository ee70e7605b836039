"""Frames: the unit of a link on the wire, which holds the messages of one tick of the event loop.

A message is one JSON array whose first element is its kind, a short string. A frame is the length
of its body, in 4 bytes, big-endian, and the body: a JSON array of messages. Batching decides the
throughput of a link: a frame costs one system call and one call of the parser on each side,
however many messages it has.

A frame of several messages has at most `FRAME_SIZE` bytes, so neither side handles more than that
without giving way to other tasks. A larger message has a frame of its own, up to the limit that
its receiver has announced.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import orjson

FRAME_SIZE = 256 * 1024
"""Bytes of the body of a frame with several messages, at most."""

HEADER_SIZE = 4
BRACKETS = 2
"""Bytes that a body has beyond its one message."""

Message: TypeAlias = "list[Any]"
"""A message as it arrives, unchecked."""


class ProtocolError(Exception):
    """A violation of the protocol by the peer, which ends the link."""


def check_limits(max_calls: int, max_frame: int) -> None:
    """Check the limits of a node: the requests and the bytes of a frame that it accepts.

    Raises:
        ValueError: One is out of its range.
    """
    if not 1 <= max_calls <= 1_000_000:
        raise ValueError(f"max_calls must be 1 to 1,000,000, not {max_calls}")
    if not FRAME_SIZE <= max_frame < 2**32:
        raise ValueError(f"max_frame must be {FRAME_SIZE:,} to 2**32, not {max_frame}")


def encode_frame(messages: list[bytes]) -> bytes:
    """A frame with ``messages``, each of which is a JSON array."""
    body = b",".join(messages)
    return b"%b[%b]" % ((len(body) + BRACKETS).to_bytes(HEADER_SIZE, "big"), body)


def batch_length(messages: list[bytes]) -> int:
    """The number of messages, from the first, that one frame holds: at least one.

    The first is alone if it is larger than `FRAME_SIZE`.
    """
    size = BRACKETS - 1  # one comma less than messages
    for index, message in enumerate(messages):
        size += len(message) + 1
        if size > FRAME_SIZE and index:
            return index
    return len(messages)


class FrameDecoder:
    """Incremental decoder: takes bytes in pieces of any size, and returns the frames in them.

    Its buffer grows with the bytes that arrive. The announced length of a frame reserves no memory.

    Args:
        limit: The bytes that the body of a frame may have. It can be changed between frames.
    """

    __slots__ = ("_buffer", "_start", "limit")

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self._buffer: bytes | bytearray = b""
        self._start = 0

    @property
    def buffered(self) -> int:
        """Bytes that have arrived and aren't returned yet."""
        return len(self._buffer) - self._start

    def push(self, data: bytes) -> None:
        """Add the next bytes of the connection."""
        buffer, start = self._buffer, self._start
        if start == len(buffer):
            self._buffer = data
        elif isinstance(buffer, bytearray):
            del buffer[:start]
            buffer += data
        else:
            self._buffer = bytearray(memoryview(buffer)[start:])
            self._buffer += data
        self._start = 0

    def pop(self) -> list[Message] | None:
        """The messages of the next frame; None if it hasn't arrived in full.

        The elements of the list may be JSON values of any type; the caller checks them.

        Raises:
            ProtocolError: It is larger than the limit, isn't JSON, or isn't an array; or it has
                several messages and is larger than `FRAME_SIZE`.
        """
        buffer, start = self._buffer, self._start
        begin = start + HEADER_SIZE
        if len(buffer) < begin:
            return None
        size = int.from_bytes(buffer[start:begin], "big")
        if size > self.limit:
            raise ProtocolError(f"a frame of {size:,} bytes exceeds the limit of {self.limit:,}")
        end = begin + size
        if len(buffer) < end:
            return None
        try:
            messages = orjson.loads(buffer[begin:end])
        except orjson.JSONDecodeError as error:
            raise ProtocolError(f"a frame isn't JSON: {error}") from None
        if type(messages) is not list:
            raise ProtocolError("a frame isn't a JSON array")
        if size > FRAME_SIZE and len(messages) > 1:
            raise ProtocolError(
                f"a frame of {size:,} bytes has {len(messages):,} messages; "
                f"above {FRAME_SIZE:,} bytes only one is allowed"
            )
        self._start = end
        return messages
