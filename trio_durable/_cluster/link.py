"""A link: one connection between two nodes, with one task that reads and one that writes.

Invariants:

- The task that reads never waits for room to send, nor for the task that writes. Two peers whose
  readers did so would wait for each other for ever. What the socket takes at once it may send.
- `Link.send` is a plain function: it appends a message and wakes the writer, once. What is sent
  until the writer runs, which is one tick of the event loop, shares frames. A frame leaves as soon
  as it has eight messages, so that the peer works on them while this node works on the next ones.
- Messages leave the queue in order, and a message in the queue can be withdrawn. So each message
  was either never sent, or may have been sent, and the link knows which.
- Input of the peer ends the link at worst. No exception leaves `Link.run` because of it.
- A link that can't write any more, or has said goodbye, still reads: messages that the peer sent
  before may be waiting in the connection. Closing a socket that has unread data would destroy
  what its peer hasn't read (TCP), or break the peer's next write before its next read.
- The link ends once. It reports its end by a plain call, before it closes the connection.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import anyio
import attrs
import orjson
from anyio.abc import ByteStream

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._text import error_summary, short_repr
from .address import close_copy
from .frames import (
    BRACKETS,
    FRAME_SIZE,
    FrameDecoder,
    Message,
    ProtocolError,
    batch_length,
    encode_frame,
)
from .outlet import Outlet

logger = logging.getLogger("trio_durable.cluster")

BEATS = 4
"""Beats in a TTL. A silent peer gets a ping on each."""

_SLICE: Final = 8
"""Messages in the queue that aren't held back until the writer runs."""
_SECONDS: Final = 0.005
"""How long other tasks wait for messages to be handled, but for one that takes longer."""

_LOST = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)

_PING: Final = b'["p"]'
_PONG: Final = b'["q"]'


class EndKind(enum.Enum):
    """Reasons of the end of a link."""

    CLOSED = "this node closed it"
    GOODBYE = "the peer closed it"
    LOST = "the connection was lost"
    SILENCE = "the peer was silent"
    STALLED = "the peer did not read"
    PROTOCOL = "the peer broke the protocol"
    FAULT = "a fault of trio_durable"


_LEVELS = {
    EndKind.CLOSED: logging.DEBUG,
    EndKind.GOODBYE: logging.DEBUG,
    EndKind.LOST: logging.INFO,
    EndKind.SILENCE: logging.WARNING,
    EndKind.STALLED: logging.WARNING,
    EndKind.PROTOCOL: logging.WARNING,
    EndKind.FAULT: logging.DEBUG,  # it has a line of its own, with a traceback
}


@attrs.frozen
class LinkEnd:
    """The end of a link."""

    kind: EndKind
    detail: str = ""
    last: int | None = None
    """With a goodbye: the greatest id of a request that the peer has accepted."""

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.detail}" if self.detail else self.kind.value


class LinkClosed(Exception):
    """The link has ended, so the message wasn't sent."""

    def __init__(self, end: LinkEnd) -> None:
        super().__init__(end)
        self.end = end


class MessageTooLarge(Exception):
    """The message exceeds the limit that the peer has announced. It wasn't sent."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a message of {self.size:,} bytes exceeds the limit of {self.limit:,}"


class Link:
    """A connection after its handshake.

    Args:
        loop: The event loop.
        stream: The connection. `run` closes it.
        decoder: Decodes what arrives; it may have some already.
        name: The peer in log lines.
        max_frame: The bytes that the body of a frame to the peer may have.
        ttl: Seconds of silence that end the link, and of waiting for a peer that doesn't read.
        kinds: Handlers of messages by kind, called in the task that reads. A handler raises
            `ProtocolError` if its message isn't allowed; a message that is too short or has other
            types may raise LookupError, TypeError or ValueError.
        wrote: Called after each frame was written: there may be room in the queue.
        ended: Called once, when the link ends.
    """

    def __init__(
        self,
        loop: Loop,
        stream: ByteStream,
        decoder: FrameDecoder,
        *,
        name: str,
        max_frame: int,
        ttl: float,
        kinds: Mapping[str, Callable[[Message], object]],
        wrote: Callable[[], object],
        ended: Callable[[LinkEnd], object],
    ) -> None:
        self.name = name
        self.max_message = max_frame - BRACKETS
        """Bytes of a message, at most."""
        self.end: LinkEnd | None = None
        """None while it is open."""
        self.closing: LinkEnd | None = None
        """None until it closes or has ended. Nothing is accepted for sending from then on."""
        self.unsent = 0
        """Bytes in the queue."""
        self._loop = loop
        self._taken = 0  # messages that have left the queue
        self._stopwatch = loop.stopwatch()
        self._stream = stream
        self._outlet: Outlet | None = None
        self._decoder = decoder
        self._ttl = ttl
        self._kinds: dict[str, Callable[[Message], object]] = {
            "p": self._pinged,
            "q": _check_list,
            "b": self._goodbye,
            **kinds,
        }
        self._wrote = wrote
        self._ended = ended
        self._queue: list[bytes] = []
        self._wakeup = AutoResetEvent(loop)
        self._scope = anyio.CancelScope()
        self._has_withdrawn = False
        self._heard = 0  # chunks received
        self._is_handling = False  # messages are handled, behind which the queue is sent
        self._is_sending = False
        self._last_pong = 0

    # --- sending ---------------------------------------------------------------------------------

    def send(self, message: bytes) -> int:
        """Queue ``message``, a JSON array, for the next frame.

        Returns:
            Its number, for `withdraw`. Messages are counted from 1.

        Raises:
            MessageTooLarge: The peer doesn't accept it.
            LinkClosed: The link has ended, or is closing.
        """
        size = len(message)
        if size > self.max_message:
            raise MessageTooLarge(size, self.max_message)
        if self.closing is not None:
            raise LinkClosed(self.closing)
        queue = self._queue
        if not queue and not self._is_handling:
            self._wakeup.set()  # first: if it raises, nothing has happened
        queue.append(message)
        self.unsent += size + 1
        number = self._taken + len(queue)
        if len(queue) >= _SLICE and not self._is_sending:
            self._send_now()
        return number

    def withdraw(self, number: int) -> bool:
        """Remove a message from the queue.

        Returns:
            True if it is never sent; False if it may have been.
        """
        index = number - self._taken - 1
        if index < 0:
            return False
        if self.end is not None:
            return True
        self.unsent -= len(self._queue[index])
        self._queue[index] = b""
        self._has_withdrawn = True
        return True

    def was_taken(self, number: int) -> bool:
        """True if a message has left the queue, so that it may have been sent."""
        return number <= self._taken

    def close(self, reason: str, last: int | None = None) -> None:
        """Queue a goodbye, and end when the peer has read it and closed the connection.

        It takes a TTL at most, and a beat once the goodbye is written. `send` raises from now on.

        Args:
            reason: For the peer's log.
            last: The greatest id of a request that was accepted.
        """
        if self.closing is None:
            goodbye = orjson.dumps(["b", reason, last])
            try:
                self.send(goodbye)
            finally:
                self.closing = LinkEnd(EndKind.CLOSED, reason)
                self._wakeup.set()

    # --- the end ---------------------------------------------------------------------------------

    def finish(self, end: LinkEnd) -> None:
        """End the link now. Only the first call counts."""
        if self.end is None:
            self.end = self.closing = end
            logger.log(_LEVELS[end.kind], "the link to %s has ended: %s", self.name, end)
            try:
                self._ended(end)
            finally:
                self._scope.cancel()

    def forked(self) -> None:
        """Close the copy of the connection in a forked process; the parent's stays open."""
        if self._outlet is not None:
            self._outlet.close()
        close_copy(self._stream)

    async def run(self) -> None:
        """Serve the link until it ends, and close the connection. Once.

        A cancellation from outside ends it, too, and passes.
        """
        try:
            with self._scope:
                self._outlet = outlet = Outlet(self._stream)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._guarded, partial(self._write, outlet))
                    tasks.start_soon(self._guarded, partial(self._beat, outlet))
                    await self._guarded(self._read)
        finally:
            try:
                self.finish(LinkEnd(EndKind.CLOSED, "it was cancelled"))
            finally:
                self._queue.clear()
                if self._outlet is not None:
                    self._outlet.close()
                await anyio.aclose_forcefully(self._stream)

    async def _guarded(self, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part of the link; any exception of it ends the link."""
        try:
            await part()
        except ProtocolError as error:
            self.finish(LinkEnd(EndKind.PROTOCOL, str(error)))
        except _LOST as error:
            self.finish(self.closing or LinkEnd(EndKind.LOST, error_summary(error)))
        except BaseException as error:
            if isinstance(error, anyio.get_cancelled_exc_class()):
                raise
            if self.end is None:
                logger.error("a fault in the link to %s", self.name, exc_info=error)
            self.finish(LinkEnd(EndKind.FAULT, error_summary(error)))
            if not isinstance(error, Exception):
                self._loop.interrupt(error)

    # --- the task that reads ---------------------------------------------------------------------

    async def _read(self) -> None:
        decoder, receive = self._decoder, self._stream.receive
        while True:
            while (messages := decoder.pop()) is not None:
                await self._dispatch(messages)
                if self.end is not None:
                    return
            decoder.push(await receive())
            self._heard += 1

    async def _dispatch(self, messages: list[Message]) -> None:
        """Call the handlers of messages. Other tasks run now and then."""
        kinds, now = self._kinds, self._stopwatch
        message: object = None
        until = now() + _SECONDS
        self._is_handling = True
        try:
            for message in messages:
                if now() >= until:
                    self._send_now()
                    self._is_handling = False
                    await self._loop.checkpoint()
                    self._is_handling = True
                    until = now() + _SECONDS
                if self.end is not None:
                    return
                kinds[message[0]](message)
        except (LookupError, TypeError, ValueError) as error:
            raise ProtocolError(
                f"a malformed message came: {short_repr(message)} ({error_summary(error)})"
            ) from error
        finally:
            self._is_handling = False
            self._send_now()

    def _pinged(self, message: Message) -> None:
        _check_list(message)
        # One pong for all pings that come until it is sent: a flood can't fill the queue.
        if self._last_pong <= self._taken and self.closing is None:
            self._last_pong = self.send(_PONG)

    def _goodbye(self, message: Message) -> None:
        _check_list(message)
        reason, last, *_ = *message[1:], None, None
        if last is not None and type(last) is not int:
            raise TypeError("the last id isn't an int")
        self.finish(LinkEnd(EndKind.GOODBYE, short_repr(reason), last))

    # --- the task that writes --------------------------------------------------------------------

    async def _write(self, outlet: Outlet) -> None:
        try:
            await self._write_queue(outlet)
        except _LOST as error:
            # The peer has closed, and the task that reads finds that out behind its last messages.
            if self.closing is None:
                self.closing = LinkEnd(EndKind.LOST, error_summary(error))
        else:
            await anyio.sleep(self._ttl / BEATS)
            if self.closing is not None:
                self.finish(self.closing)

    async def _write_queue(self, outlet: Outlet) -> None:
        """Write what is in the queue, until the link closes."""
        while True:
            await self._wakeup.wait()
            while (self._queue or not outlet.is_empty) and self.end is None:
                if outlet.is_empty and (messages := self._take()):
                    outlet.put(encode_frame(messages))
                await outlet.send()
                self._wrote()
            if self.closing is not None:
                return

    def _send_now(self) -> None:
        """Send what is in the queue, as far as that takes no waiting; leave the rest to the writer.

        If the writer has something to send already, it gets all.
        """
        outlet = self._outlet
        try:
            self._is_sending = True
            while self._queue and self.closing is None:
                if outlet is None or not outlet.is_empty:
                    self._wakeup.set()
                    return
                if messages := self._take():
                    outlet.put(encode_frame(messages))
                    if not outlet.send_now():
                        self._wakeup.set()
                        return
                self._wrote()
        except BaseException as error:  # a signal's handler has cut it off: messages may be lost
            self.finish(LinkEnd(EndKind.FAULT, error_summary(error)))
            raise
        finally:
            self._is_sending = False

    def _take(self) -> list[bytes]:
        """Take the messages of the next frame from the queue: none if all were withdrawn."""
        messages = self._queue
        if self.unsent < FRAME_SIZE:
            self._queue = []
            self.unsent = 0
        else:
            length = batch_length(messages)
            self._queue = messages[length:]
            del messages[length:]
            self.unsent -= sum(map(len, messages)) + len(messages)
        self._taken += len(messages)
        if self._has_withdrawn:
            messages = [message for message in messages if message]
            self._has_withdrawn = bool(self._queue)
        return messages

    # --- time ------------------------------------------------------------------------------------

    async def _beat(self, outlet: Outlet) -> None:
        """Ping a silent peer, and end the link if it stays silent, or doesn't read.

        Beats are counted, not seconds: if this process was stopped or blocked meanwhile, bytes of
        the peer may still be unread.
        """
        heard = pieces = -1
        silent = stalled = closing = 0
        while True:
            await anyio.sleep(self._ttl / BEATS)
            silent = silent + 1 if self._heard == heard else 0
            stalled = stalled + 1 if not outlet.is_empty and outlet.pieces == pieces else 0
            heard, pieces = self._heard, outlet.pieces
            if self.closing is not None:
                closing += 1
                if closing >= BEATS:
                    self.finish(self.closing)
            elif silent >= BEATS:
                self.finish(LinkEnd(EndKind.SILENCE, f"for {self._ttl:g} s"))
            elif stalled >= BEATS:
                self.finish(LinkEnd(EndKind.STALLED, f"for {self._ttl:g} s"))
            elif silent and not self._queue and outlet.is_empty:
                self.send(_PING)


def _check_list(message: object) -> None:
    """Raise if ``message`` is a string, whose first character is a kind as well."""
    if type(message) is not list:
        raise TypeError("a message isn't a JSON array")
