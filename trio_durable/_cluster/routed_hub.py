"""Routed hub: the watched objects of one process of a cluster, wherever these live.

Each cell has one source, which is this process or another one. It is watched there once, however
many watchers the cell has.

Invariants:

- When the source changes, the object is watched in the new one. Its state is adopted, also with a
  lower revision: after a failover that has lost commits, it is the truth.
- News of a source that isn't the cell's counts for nothing. Nor does news of a subscription before
  the present one, which answers none of the looks since.
- A watcher begins with a state that its source has confirmed after that watcher had come. The cell
  itself may be older than a reply that the watcher's task has had.
- A look that is sent has a greater number than all before it, and is sent after each watcher that
  asked for it had come.
- A cell without a source is placed when that may be known, and looked for now and then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any

from .._eventloop.loop import Loop
from .._eventloop.wakeup import AutoResetEvent
from .._keys import ObjectKey
from .._watching.cell import Cell
from .._watching.cells import Cells
from .._watching.hub import Hub
from .._watching.session import News, NewsKind
from ..storage import StorageFault
from .feeds import Feed, LocalFeed, RemoteFeed
from .incoming import Incoming, Sender
from .news_codec import decode_news
from .peer import Peer
from .places import HERE, Places

_RETRY_SECONDS = 0.25
"""How often a place is looked for that isn't known."""
_SLICE = 256
"""Cells that are placed without a checkpoint."""


class RoutedCell(Cell):
    """A cell with a source."""

    __slots__ = ("feed", "since", "tenure")

    def __init__(self, key: ObjectKey) -> None:
        super().__init__(key)
        self.feed: Feed | None = None
        """The source; None while it isn't known."""
        self.tenure: object | None = None
        """See `Places.tenure`, if the source is this process."""
        self.since = 0
        """The look with which it became the source."""


class RoutedHub(Cells[RoutedCell]):
    """The watched objects of one process of a cluster.

    Args:
        loop: The event loop.
        hub: The states of the objects of this process.
        places: Where the objects are.
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
        super().__init__(loop, supervise)
        self._hub = hub
        self._places = places
        self._start_named = start
        self._local = LocalFeed(hub, lambda key: places.tenure(key.object_id), self._received)
        self._remote: dict[Sender, RemoteFeed] = {}
        self._look = 0
        """The number of the last looks that were sent."""
        self._due: dict[RoutedCell, None] = {}
        """The cells to look for with the next ones."""
        self._unplaced: dict[RoutedCell, None] = {}
        """The cells without a source."""
        self._may_have_moved = False
        self._wakeup = AutoResetEvent(loop)

    # --- the watchers ----------------------------------------------------------------------------

    def _new_cell(self, key: ObjectKey) -> RoutedCell:
        return RoutedCell(key)

    def _added(self, cell: RoutedCell) -> None:
        pass  # its first watcher needs a confirmation

    def _needed(self, cell: RoutedCell) -> int:
        if cell.version and cell.fault is None and self._is_here(cell):
            return 0  # its commits are reported before their replies
        self.look(cell)
        return cell.wanted

    def _is_here(self, cell: RoutedCell) -> bool:
        """True if this process has had the object since it became the source."""
        if cell.feed is not self._local or cell.confirmed < cell.since:
            return False
        return cell.tenure == self._places.tenure(cell.key.object_id)

    def look(self, cell: Cell) -> None:
        """See `Cells.look`."""
        assert isinstance(cell, RoutedCell)
        if not cell.has_ended:
            cell.fault = None
            cell.wanted = self._look + 1
            self._due[cell] = None
            self._wakeup.set()

    def _removed(self, cell: RoutedCell) -> None:
        self._due.pop(cell, None)
        self._unplaced.pop(cell, None)
        feed, cell.feed = cell.feed, None
        if feed is not None:
            feed.unwatch(cell.key)

    # --- the sources -----------------------------------------------------------------------------

    def places_changed(self) -> None:
        """Objects may be elsewhere from now on."""
        self._may_have_moved = True
        self._wakeup.set()

    def doubt_all(self) -> None:
        """See `Cells.doubt_all`."""
        self._hub.doubt_all()
        self.places_changed()

    def _begin(self) -> None:
        self._start(self._follow)

    async def _follow(self) -> None:
        """Watch each object where it is, until cancelled."""
        self._due |= dict.fromkeys(self._cells.values())  # this may have been cut off
        self._wakeup.set()
        while True:
            await self._wakeup.wait(_RETRY_SECONDS if self._unplaced else math.inf)
            if self._may_have_moved:
                self._may_have_moved = False
                await self._find_moved()
            unplaced, self._unplaced = self._unplaced, {}
            self._due |= unplaced
            await self._look_for_due()

    async def _find_moved(self) -> None:
        for number, cell in enumerate(list(self._cells.values()), 1):
            if cell.feed is not None and not self._is_placed(cell, cell.feed):
                self._due[cell] = None
            if number % _SLICE == 0:
                await self.loop.checkpoint()

    def _is_placed(self, cell: RoutedCell, feed: Feed) -> bool:
        """False if the source should be another one, or was interrupted."""
        place = self._places.find(cell.key.object_id)
        if feed is self._local:
            return place is HERE and cell.tenure == self._places.tenure(cell.key.object_id)
        return isinstance(place, Peer) and self._remote.get(place) is feed

    async def _look_for_due(self) -> None:
        """Look at all that is due, in its source."""
        if not self._due:
            return
        self._look += 1
        due, self._due = self._due, {}
        for number, cell in enumerate(due, 1):
            if self._cells.get(cell.key) is cell:
                self._look_for(cell)
            if number % _SLICE == 0:
                await self.loop.checkpoint()

    def _look_for(self, cell: RoutedCell) -> None:
        feed, tenure = self._source(cell.key.object_id)
        if feed is not cell.feed or tenure != cell.tenure:
            if cell.feed is not None and cell.feed is not feed:
                cell.feed.unwatch(cell.key)
            cell.feed, cell.tenure, cell.since = feed, tenure, self._look
        if feed is None:
            self._unplaced[cell] = None
        else:
            feed.watch(cell.key, self._look)

    def _source(self, object_id: str) -> tuple[Feed | None, object | None]:
        """The source of an object's state, and its tenure; None while it isn't known."""
        place = self._places.find(object_id)
        if place is HERE:
            tenure = self._places.tenure(object_id)
            return (None if tenure is None else self._local), tenure
        if place is None or place.end is not None:
            return None, None
        feed = self._remote.get(place)
        if feed is None:
            feed = RemoteFeed(self.loop, place, self._start_named, self._received, self._feed_ended)
            self._remote[place] = feed
        return feed, None

    def _feed_ended(self, feed: RemoteFeed) -> None:
        self._remote.pop(feed.peer, None)
        for cell in self._cells.values():
            if cell.feed is feed:
                self._lose(cell)

    def _lose(self, cell: RoutedCell) -> None:
        """A cell has no source any more: find another one."""
        cell.feed = cell.tenure = None
        self._due[cell] = None
        self._wakeup.set()

    # --- the news --------------------------------------------------------------------------------

    def serve(self, incoming: Incoming) -> None:
        """Take in the news that another process has sent."""
        feed = self._remote.get(incoming.sender)
        news = decode_news(incoming.message[5])
        if feed is not None:
            for each in news:
                self._received(feed, each)
        incoming.reply(b"null")

    def _received(self, feed: Feed, news: News) -> None:
        cell = self._cells.get(news.key)
        if cell is None or cell.feed is not feed or news.look < cell.since:
            return
        match news.kind:
            case NewsKind.STATE:
                self._adopt(cell, news.revision, news.row, news.look)
            case NewsKind.FAULT:
                cell.fault = StorageFault(news.problem)
                self._changed(cell)
            case NewsKind.ENDED:
                self._gone(cell)
            case NewsKind.MOVED:
                if isinstance(feed, RemoteFeed):
                    self._places.moved(cell.key.object_id, feed.peer)
                self._lose(cell)

    # --- the end ---------------------------------------------------------------------------------

    def dropped(self, tenant: str) -> None:
        """See `Cells.dropped`."""
        self._hub.dropped(tenant)  # the watches of other processes end, too
        super().dropped(tenant)
