"""Feeds: the sources of the watched states of one process, itself and each process it watches in.

A feed takes the objects to watch, and hands on the news of them. That of another process sends one
request at a time, with all that has come up meanwhile. So its memory is bounded by the number of
watched objects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import Any, Protocol

import anyio

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .._watching.hub import Hub
from .._watching.session import News, NewsKind, Session
from .news_codec import encode_looks
from .outcomes import ErrorReply, RequestFailed
from .peer import Peer
from .remote_errors import decode_error
from .router import MOVED

logger = logging.getLogger("trio_durable.cluster")

_LOOKS = 64
"""Looks in one request, at most. So many of the longest ids fit into the smallest frame."""
_RETRY_SECONDS = 1.0
"""When a request is repeated that the other process has refused. It may be of an older release."""


class Feed(Protocol):
    """A source of watched states."""

    def watch(self, key: ObjectKey, look: int) -> None:
        """Watch an object, or look at it once more. News of it answers this look or a later one."""
        ...

    def unwatch(self, key: ObjectKey) -> None:
        """Watch it no more."""
        ...


Received = Callable[[Feed, News], object]
"""Called with news, and where it comes from."""


class LocalFeed:
    """The objects of this process. Its news comes at once, within the path of a commit.

    Args:
        hub: Their states.
        tenure_of: See `Session`.
        received: Called with news.
    """

    def __init__(
        self, hub: Hub, tenure_of: Callable[[ObjectKey], object | None], received: Received
    ) -> None:
        self._session = Session(hub, tenure_of, self._pass_on)
        self._received = received

    def _pass_on(self) -> None:
        while (news := self._session.take()) is not None:
            self._received(self, news)

    def watch(self, key: ObjectKey, look: int) -> None:
        """See `Feed.watch`."""
        self._session.watch(key, look)

    def unwatch(self, key: ObjectKey) -> None:
        """See `Feed.unwatch`."""
        self._session.unwatch(key)


class RemoteFeed:
    """The objects of another process, for the life of one link.

    Args:
        loop: The event loop.
        peer: The process.
        start: Starts a task of the runtime.
        received: Called with news.
        ended: Called when the link has ended: no news comes any more.
    """

    def __init__(
        self,
        loop: Loop,
        peer: Peer,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]], str], object],
        received: Received,
        ended: Callable[[RemoteFeed], object],
    ) -> None:
        self.peer = peer
        self._received = received
        self._on_end = ended
        self._looks: dict[ObjectKey, int] = {}
        """The looks to send; 0 ends a watch."""
        self._wakeup = AutoResetEvent(loop)
        self._has_warned = False
        start(self._run, f"trio_durable watches in {peer.them.node_id}")
        peer.when_ended(self._ended)

    def watch(self, key: ObjectKey, look: int) -> None:
        """See `Feed.watch`."""
        self._looks[key] = look
        self._wakeup.set()

    def unwatch(self, key: ObjectKey) -> None:
        """See `Feed.unwatch`."""
        self.watch(key, 0)

    def _ended(self) -> None:
        self._on_end(self)
        self._wakeup.set()

    async def _run(self) -> None:
        """Send the looks, until the link ends."""
        while self.peer.end is None:
            await self._wakeup.wait()
            while self._looks and self.peer.end is None:
                looks = list(islice(self._looks.items(), _LOOKS))
                for key, _ in looks:
                    del self._looks[key]
                try:
                    await self.peer.request(encode_looks(looks), None)
                except ErrorReply as reply:
                    await self._refused(reply, looks)
                except RequestFailed:
                    return  # the link has ended

    async def _refused(self, reply: ErrorReply, looks: Sequence[tuple[ObjectKey, int]]) -> None:
        if reply.value == MOVED:
            for key, look in looks:
                if look:
                    self._received(self, News(key, look, NewsKind.MOVED))
            return
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "process %s, of release %s, refuses watches of its objects (%s); they wait until "
                "another process has these",
                *(self.peer.them.node_id, self.peer.them.release, decode_error(reply.value)),
            )
        await anyio.sleep(_RETRY_SECONDS)
        for key, look in looks:
            self._looks.setdefault(key, look)
