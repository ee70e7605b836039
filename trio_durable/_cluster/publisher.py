"""Publisher: the watches of other processes in the objects of this one.

Each link has a session, which ends with it. Its task sends the news in one request at a time, so a
process that is slow to read gets the latest states, and no more of them than it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .._watching.hub import Hub
from .._watching.session import News, NewsKind, Session
from .incoming import Incoming, Sender
from .link import MessageTooLarge
from .news_codec import decode_looks, encode_news, watched
from .outcomes import ErrorReply, RequestFailed
from .places import Places

logger = logging.getLogger("trio_durable.cluster")

_BATCH_BYTES = 128 * 1024
"""News in one request, unless it is a single state."""
_OVERHEAD = 512
"""Bytes of news besides the state and the id, about."""
_SLICE = 256
"""Subscriptions that are checked without a checkpoint."""


class _Subscriber:
    """The session of one link."""

    def __init__(self, loop: Loop, hub: Hub, places: Places, sender: Sender) -> None:
        self._sender = sender
        self._places = places
        self._wakeup = AutoResetEvent(loop)
        self._undecided: dict[ObjectKey, int] = {}
        """The looks at objects of which it isn't known yet whether they are here."""
        self._next: News | None = None
        """News that was taken, and didn't fit into the last request."""
        self.has_ended = False
        tenure = places.tenure
        self.session = Session(hub, lambda key: tenure(key.object_id), self._wakeup.set)

    def look(self, key: ObjectKey, look: int) -> None:
        """Begin a watch, confirm it, or end it with look 0."""
        if look:
            self._undecided[key] = look
            self._places.decide(key.object_id, partial(self._decided, key, look))
        else:
            self._undecided.pop(key, None)
            self.session.unwatch(key)

    def _decided(self, key: ObjectKey, look: int, is_here: bool) -> None:
        if self._undecided.get(key) != look:
            return
        del self._undecided[key]
        if is_here:
            self.session.watch(key, look)
        else:
            self.session.refuse(key, look)

    async def run(self) -> None:
        """Send the news, until the link ends."""
        while not self.has_ended:
            await self._wakeup.wait()
            while not self.has_ended and (batch := self._batch()):
                try:
                    await self._send(batch)
                except RequestFailed:
                    return  # the link has ended
                except ErrorReply as reply:
                    logger.error("news of watches was refused: %s", reply.value)
                    self._sender.abort("it refuses news of watches")

    def _batch(self) -> list[News]:
        batch: list[News] = []
        size = 0
        while size < _BATCH_BYTES:
            news, self._next = self._next or self.session.take(), None
            if news is None:
                break
            size += len(news.row or b"")
            if batch and size > _BATCH_BYTES:
                self._next = news
                break
            batch.append(news)
            size += len(news.key.object_id) + _OVERHEAD
        return batch

    async def _send(self, batch: list[News]) -> None:
        try:
            await self._sender.request(watched(map(encode_news, batch)), None)
        except MessageTooLarge as error:
            if len(batch) > 1:
                for news in batch:
                    await self._send([news])
                return
            (news,) = batch
            problem = f"its state can't be sent to the process that watches: {error}"
            fault = News(news.key, news.look, NewsKind.FAULT, problem=problem)
            await self._sender.request(watched([encode_news(fault)]), None)

    def end(self) -> None:
        """The link has ended."""
        self.has_ended = True
        self._undecided.clear()
        self.session.close()
        self._wakeup.set()


class Publisher:
    """The watches of other processes.

    Args:
        loop: The event loop.
        hub: The states of the objects of this process.
        places: Knows which these are.
        supervise: Starts a task of the runtime, which runs for ever.
        start: Starts one with a name.
    """

    def __init__(
        self,
        loop: Loop,
        hub: Hub,
        places: Places,
        supervise: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        start: Callable[[Callable[[], Coroutine[Any, Any, None]], str], object],
    ) -> None:
        self._loop = loop
        self._hub = hub
        self._places = places
        self._supervise = supervise
        self._start = start
        self._subscribers: dict[Sender, _Subscriber] = {}
        self._wakeup = AutoResetEvent(loop)
        self._has_begun = False

    def serve(self, incoming: Incoming) -> None:
        """Take in the looks that another process has sent."""
        looks = decode_looks(incoming.message[5])
        subscriber = self._subscriber(incoming.sender)
        for key, look in looks:
            subscriber.look(key, look)
        incoming.reply(b"null")

    def _subscriber(self, sender: Sender) -> _Subscriber:
        found = self._subscribers.get(sender)
        if found is None:
            found = _Subscriber(self._loop, self._hub, self._places, sender)
            self._subscribers[sender] = found
            self._start(found.run, "trio_durable watches of another process")
            sender.when_ended(partial(self._ended, sender))
            if not self._has_begun:
                self._has_begun = True
                self._supervise(self._follow)
        return found

    def _ended(self, sender: Sender) -> None:
        self._subscribers.pop(sender).end()

    def places_changed(self) -> None:
        """Objects may be elsewhere from now on."""
        self._wakeup.set()

    async def _follow(self) -> None:
        """Have subscriptions end whose objects have moved, until cancelled."""
        self._wakeup.set()  # this may have been cut off
        while True:
            await self._wakeup.wait()
            number = 0
            for subscriber in list(self._subscribers.values()):
                for key in subscriber.session.keys:
                    subscriber.session.check(key)
                    number += 1
                    if number % _SLICE == 0:
                        await self._loop.checkpoint()
