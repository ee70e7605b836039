"""Deliveries in flight: from when an alarm is taken to when its outcome is durable."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator

from ..._alarms.delivery import Delivery
from ..._alarms.retry import DEFAULT_RETRY, Retry
from ..._errors import OwnerLost
from ..._eventloop.loop import CallbackWaiter, Waiter
from ..._keys import AlarmKey, ObjectKey, Owner
from ...storage import AlarmChanges, StoredAlarm

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

    __slots__ = (
        "began",
        "delivery",
        "is_handed_over",
        "is_uncertain",
        "retry",
        "stored",
        "watchers",
    )

    def __init__(self, ended: Callable[[InFlight], object], key: AlarmKey, claim: int) -> None:
        super().__init__(ended)
        self.delivery = Delivery(key, claim)
        self.stored: StoredAlarm | None = None
        """The row, once it is claimed."""
        self.is_handed_over = False
        """Its end comes by itself: it is the destination's, or it is postponed."""
        self.is_uncertain = False
        """Its commit failed, and may be durable all the same, with another time for the alarm."""
        self.retry: Retry = DEFAULT_RETRY
        self.began = 0.0
        self.watchers: list[Waiter] | None = []
        """The waiters for its settlement; None once it is settled."""

    @property
    def key(self) -> AlarmKey:
        """The key of the alarm."""
        return self.delivery.key

    @property
    def lost_owner(self) -> bool:
        """True if the runtime lost the alarm's object, which is no attempt."""
        return isinstance(self.error, OwnerLost) and self.error.key == self.key.object_key


class InFlightDeliveries:
    """All deliveries in flight, and the bounds on their number.

    A delivery whose alarm was changed isn't found by the alarm any more, but is still in flight.
    """

    def __init__(self) -> None:
        self._by_key: dict[AlarmKey, InFlight] = {}
        self._by_object: dict[Owner, list[InFlight]] = {}
        # In order of their beginnings. Ordered dictionaries, since a plain one searches past the
        # places of what was removed before.
        self._all: OrderedDict[InFlight, None] = OrderedDict()
        self._recent: OrderedDict[InFlight, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[InFlight]:
        return iter(self._all)

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
        while (first := next(iter(recent), None)) is not None and (
            first.ended or first.began <= now - RECENT_SECONDS
        ):
            del recent[first]
        most = MAX_RECENT_BESIDE_CALLS if are_calls else MAX_RECENT
        return max(0, min(most - len(recent), MAX_IN_FLIGHT - len(self._all)))

    def add(self, flight: InFlight, now: float) -> None:
        """Begin a delivery. An earlier one of the same alarm is superseded."""
        key = flight.key
        before = self._by_key.get(key)
        if before is not None and before.delivery.is_current:
            before.delivery.superseded = True
        flight.began = now
        self._all[flight] = None
        self._recent[flight] = None
        self._by_key[key] = flight
        self._by_object.setdefault(key.owner, []).append(flight)

    def handled(self, flight: InFlight) -> None:
        """The handler of a delivery is done; its failure may still have to be written."""
        self._recent.pop(flight, None)

    def remove(self, flight: InFlight) -> None:
        """End a delivery. One that isn't there any more is ignored."""
        self._all.pop(flight, None)
        self._recent.pop(flight, None)
        key = flight.key
        if self._by_key.get(key) is flight:
            del self._by_key[key]
        of_object = self._by_object.get(key.owner, [])
        if flight in of_object:
            of_object.remove(flight)
        if not of_object:
            self._by_object.pop(key.owner, None)

    # --- changes of their alarms -----------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Mark the deliveries whose alarms a durable commit has acknowledged or changed."""
        for flight in self.of_object(key.owner):
            delivery = flight.delivery
            if delivery.is_acknowledged_by(changes):
                delivery.acknowledged = True  # also if it sets the next firing
            elif changes.touches(delivery.key.name):
                delivery.superseded = True

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Mark the deliveries whose alarms a failed commit has changed, if it is durable.

        One that it acknowledges fails by itself.
        """
        for flight in self.of_object(key.owner):
            delivery = flight.delivery
            if not delivery.is_acknowledged_by(changes) and changes.touches(delivery.key.name):
                delivery.superseded = True

    def dropped(self, tenant: str) -> None:
        """Mark the deliveries of a dropped tenant as superseded."""
        for flight in self:
            if flight.key.tenant == tenant:
                flight.delivery.superseded = True
