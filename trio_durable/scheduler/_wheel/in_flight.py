"""Deliveries in flight: from when an alarm is taken to when its outcome is durable."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from ..._alarms.delivery import Delivery
from ..._alarms.retry import DEFAULT_RETRY, Retry
from ..._eventloop.loop import CallbackWaiter, Waiter
from ..._keys import AlarmKey, Owner
from ...storage import StoredAlarm

MAX_RECENT = 256
"""How many recent deliveries there may be."""
MAX_RECENT_BESIDE_CALLS = 32
"""The same while objects are called as well."""
RECENT_SECONDS = 0.25
"""How long a delivery is recent."""
MAX_IN_FLIGHT = 16_384
"""How many deliveries there may be in all."""
MAX_PER_OBJECT = 4
"""How many deliveries an object may have, which handles one after the other."""


class InFlight(CallbackWaiter):
    """One delivery: a waiter that is released when its handler's commit is durable."""

    __slots__ = ("began", "delivery", "is_recent", "retry", "stored", "watchers")

    def __init__(self, ended: Callable[[InFlight], object], key: AlarmKey, claim: int) -> None:
        super().__init__(ended)
        self.delivery = Delivery(key, claim)
        self.stored: StoredAlarm | None = None
        """The row, once it is claimed."""
        self.retry: Retry = DEFAULT_RETRY
        self.began = 0.0
        self.is_recent = False
        self.watchers: list[Waiter] | None = []
        """The waiters for its settlement; None once it is settled."""

    @property
    def key(self) -> AlarmKey:
        """The key of the alarm."""
        return self.delivery.key


class InFlightDeliveries:
    """All deliveries in flight, and the bounds on their number.

    A delivery whose alarm was changed isn't found by the alarm any more, but is still in flight.
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
        """True if an alarm is being delivered as it is set now."""
        flight = self._by_key.get(key)  # type: ignore[call-overload]  # a Container takes any
        return flight is not None and flight.delivery.is_current

    def find(self, key: AlarmKey) -> InFlight | None:
        """The latest delivery of an alarm."""
        return self._by_key.get(key)

    def of_object(self, owner: Owner) -> Collection[InFlight]:
        """The deliveries of an object."""
        return self._by_object.get(owner, ())

    def is_full(self, owner: Owner) -> bool:
        """True if an object has as many deliveries as it may have."""
        return len(self.of_object(owner)) >= MAX_PER_OBJECT

    def room(self, now: float, *, are_calls: bool) -> int:
        """How many more may begin."""
        recent = self._recent
        while recent and (recent[0].ended or recent[0].began <= now - RECENT_SECONDS):
            self._not_recent(recent.popleft())
        most = MAX_RECENT_BESIDE_CALLS if are_calls else MAX_RECENT
        return max(0, min(most - self._recent_count, MAX_IN_FLIGHT - self._count))

    def add(self, flight: InFlight, now: float) -> None:
        """Begin a delivery. An earlier one of the same alarm is superseded."""
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

    def handled(self, flight: InFlight) -> None:
        """The handler of a delivery is done; its failure may still have to be written."""
        self._not_recent(flight)

    def remove(self, flight: InFlight) -> None:
        """End a delivery. One that isn't there any more is ignored."""
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
