"""Session: the objects of this process that one subscriber watches, another process or this one.

It keeps a set of the objects with news, never a queue of their states. So its memory is bounded by
the number of watched objects, and a slow subscriber gets the latest state of each.

Invariants:

- A subscription holds for one tenure: the time for which an object is in this process without
  interruption. After that it has one more piece of news, that the object has moved.
- News gives the number of the last look that it answers. The state in it is no older than that
  look, since the hub has confirmed it within the tenure.
- Only durable states are news, since a hub has no others.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

import attrs

from .._keys import ObjectKey
from .cell import Cell
from .hub import Hub


class NewsKind(enum.Enum):
    """The kind of news of an object. Its value is its name on the wire."""

    STATE = "s"
    """It has this state."""
    FAULT = "f"
    """Its state can't be read."""
    MOVED = "m"
    """It isn't in this process, or wasn't for a while; the subscription is over."""
    ENDED = "e"
    """Its tenant was dropped; the subscription is over."""


@attrs.frozen
class News:
    """News of one object."""

    key: ObjectKey
    look: int
    """The last look of the subscriber that it answers."""
    kind: NewsKind
    revision: int = 0
    row: bytes | None = None
    problem: str = ""
    """With a fault: the reason."""


class _Subscription:
    """One watched object of a session."""

    __slots__ = ("answered", "asked", "cell", "needed", "seen", "session", "tenure")

    def __init__(self, session: Session, tenure: object) -> None:
        self.session = session
        self.tenure = tenure
        self.cell: Cell
        self.asked = self.answered = self.needed = self.seen = 0

    def changed(self, cell: Cell) -> None:
        """See `Follower.changed`."""
        self.session.note(cell.key)


class Session:
    """The subscriptions of one subscriber.

    Args:
        hub: The states of the objects of this process.
        tenure_of: Returns a value that is equal for as long as an object is in this process without
            interruption; None while it isn't.
        has_news: Called when there is news: at once, within a commit's path.
    """

    def __init__(
        self,
        hub: Hub,
        tenure_of: Callable[[ObjectKey], object | None],
        has_news: Callable[[], object],
    ) -> None:
        self._hub = hub
        self._tenure_of = tenure_of
        self._has_news = has_news
        self._subscriptions: dict[ObjectKey, _Subscription] = {}
        self._dirty: dict[ObjectKey, int] = {}
        """The objects that may have news, each with its last look, if there is no subscription."""
        self._is_closed = False

    @property
    def keys(self) -> list[ObjectKey]:
        """The objects with a subscription."""
        return list(self._subscriptions)

    def watch(self, key: ObjectKey, look: int) -> None:
        """Subscribe to an object, or look at it once more. The news answers ``look``."""
        if self._is_closed:
            return
        tenure = self._tenure_of(key)
        found = self._subscriptions.get(key)
        if found is not None and found.tenure != tenure:
            self._drop(key)
            found = None
        if tenure is None:
            self.refuse(key, look)
            return
        if found is None:
            found = self._subscriptions[key] = _Subscription(self, tenure)
            found.cell, found.needed = self._hub.follow(key, found)
        else:
            found.needed = self._hub.ask(found.cell)
        found.asked = look

    def refuse(self, key: ObjectKey, look: int) -> None:
        """Answer a look at an object that isn't in this process."""
        if not self._is_closed:
            self._drop(key)
            self._dirty[key] = look
            self._has_news()

    def unwatch(self, key: ObjectKey) -> None:
        """End a subscription."""
        self._drop(key)

    def note(self, key: ObjectKey) -> None:
        """An object may have news."""
        self._dirty.setdefault(key, 0)
        self._has_news()

    def check(self, key: ObjectKey) -> None:
        """The places of objects have changed: see whether one has moved."""
        found = self._subscriptions.get(key)
        if found is not None and found.tenure != self._tenure_of(key):
            self.note(key)

    def take(self) -> News | None:
        """The next piece of news, which isn't returned again; None if there is none."""
        while self._dirty:
            key = next(iter(self._dirty))
            look = self._dirty.pop(key)
            found = self._subscriptions.get(key)
            if found is not None:
                news = self._news(key, found)
            else:
                news = News(key, look, NewsKind.MOVED) if look else None
            if news is not None:
                return news
        return None

    def _news(self, key: ObjectKey, found: _Subscription) -> News | None:
        cell = found.cell
        if cell.has_ended or found.tenure != self._tenure_of(key):
            kind = NewsKind.ENDED if cell.has_ended else NewsKind.MOVED
            self._drop(key)
            return News(key, found.asked, kind)
        is_answer = found.answered < found.asked
        if is_answer and cell.fault is not None:
            found.answered = found.asked
            return News(key, found.asked, NewsKind.FAULT, problem=str(cell.fault))
        if is_answer and cell.version and cell.confirmed >= found.needed:
            found.answered = found.asked
        elif cell.version == found.seen or not found.answered:
            return None
        found.seen = cell.version
        return News(key, found.answered, NewsKind.STATE, cell.revision, cell.row)

    def _drop(self, key: ObjectKey) -> None:
        self._dirty.pop(key, None)
        found = self._subscriptions.pop(key, None)
        if found is not None:
            self._hub.unfollow(found.cell, found)

    def close(self) -> None:
        """End all subscriptions: the subscriber is gone."""
        self._is_closed = True
        for key in self.keys:
            self._drop(key)
        self._dirty.clear()
