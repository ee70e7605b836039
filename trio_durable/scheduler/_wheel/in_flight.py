"""Alarms under way, from the moment they are taken from the agenda until they are settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from ..._alarms.delivery import Delivery
from ..._alarms.retry import DEFAULT_RETRY, Retry
from ..._eventloop.loop import CallbackWaiter, Waiter
from ..._keys import AlarmKey, Owner
from ...storage import StoredAlarm

MAX_RECENT = 256
"""How many flights that began just now there may be."""
MAX_RECENT_BESIDE_CALLS = 32
"""The same while objects are called as well."""
RECENT_SECONDS = 0.25
"""Seconds after which one began a while ago."""
MAX_IN_FLIGHT = 16_384
"""How many there may be in all."""
MAX_PER_OBJECT = 4
"""How many there may be of one object, which handles one after the other."""


class InFlight(CallbackWaiter):
    """One alarm under way: a waiter that is released when its handler's commit is durable."""

    __slots__ = ("began", "delivery", "is_recent", "retry", "stored", "watchers")

    def __init__(self, tell: Callable[[InFlight], object], key: AlarmKey, claim: int) -> None:
        super().__init__(tell)
        self.delivery = Delivery(key, claim)
        self.stored: StoredAlarm | None = None
        """The row, once it is claimed."""
        self.retry: Retry = DEFAULT_RETRY
        self.began = 0.0
        self.is_recent = False
        self.watchers: list[Waiter] | None = []
        """Who waits for it to be settled; None once it is."""

    @property
    def key(self) -> AlarmKey:
        """Which alarm it is."""
        return self.delivery.key


class InFlightDeliveries:
    """All that is under way, and how much more may be.

    One whose alarm was set anew or cancelled doesn't stand for it any more, but is still under way.
    """

    def __init__(self) -> None:
        self._by_key: dict[AlarmKey, InFlight] = {}
        self._by_object: dict[Owner, list[InFlight]] = {}
        self._count = 0
        self._recent: deque[InFlight] = deque()
        self._recent_count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[InFlight]:
        for flights in self._by_object.values():
            yield from flights

    def __contains__(self, key: object) -> bool:
        """Whether an alarm is under way as it is set now."""
        flight = self._by_key.get(key)  # type: ignore[call-overload]  # a Container takes any
        return flight is not None and flight.delivery.is_current

    def find(self, key: AlarmKey) -> InFlight | None:
        """The latest flight of an alarm."""
        return self._by_key.get(key)

    def of_object(self, owner: Owner) -> Collection[InFlight]:
        """The flights of an object."""
        return self._by_object.get(owner, ())

    def is_full(self, owner: Owner) -> bool:
        """Whether an object has enough to do."""
        return len(self.of_object(owner)) >= MAX_PER_OBJECT

    def room(self, now: float, *, are_calls: bool) -> int:
        """How many more may begin."""
        recent = self._recent
        while recent and (recent[0].ended or recent[0].began <= now - RECENT_SECONDS):
            self._not_recent(recent.popleft())
        most = MAX_RECENT_BESIDE_CALLS if are_calls else MAX_RECENT
        return max(0, min(most - self._recent_count, MAX_IN_FLIGHT - self._count))

    def add(self, flight: InFlight, now: float) -> None:
        """Let one begin."""
        key = flight.key
        before = self._by_key.get(key)
        if before is not None and before.delivery.is_current:
            before.delivery.superseded = True
        self._by_key[key] = flight
        self._by_object.setdefault(key.owner, []).append(flight)
        self._count += 1
        flight.began = now
        flight.is_recent = True
        self._recent.append(flight)
        self._recent_count += 1

    def landed(self, flight: InFlight) -> None:
        """Its handler is done; it may still have to be written down."""
        self._not_recent(flight)

    def remove(self, flight: InFlight) -> None:
        """It is settled."""
        self._not_recent(flight)
        key = flight.key
        if self._by_key.get(key) is flight:
            del self._by_key[key]
        of_object = self._by_object.get(key.owner, [])
        if flight in of_object:
            of_object.remove(flight)
            self._count -= 1
            if not of_object:
                del self._by_object[key.owner]

    def _not_recent(self, flight: InFlight) -> None:
        if flight.is_recent:
            flight.is_recent = False
            self._recent_count -= 1
