"""Directory: the objects of one type that are in memory, in order of last use.

It maps an address to the object's activation. An address is an id, together with the name of a
tenant if the object has one; so one directory serves all tenants, and they share one order of use
and one bound.

Active and hibernated objects are apart, each in order of last use, so that the objects which are
due for hibernation or for leaving memory are found at the beginnings (see `eviction`).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

from .._keys import ObjectKey
from .._telemetry.events import Entered, Hibernated, LeavingReason, Left, Woken
from .activation import Activation
from .eviction import NEVER
from .object_type import ObjectType
from .resident import Resident
from .services import Services

_BUSY_RETRY_SECONDS = 1.0
"""The earliest next look at an object that should retire but is busy."""


class Directory:
    """The objects of one type in one runtime."""

    def __init__(self, object_type: ObjectType, services: Services) -> None:
        self.object_type = object_type
        self._services = services
        self._notifier = services.notifier
        self._now = services.loop.now
        options = object_type.options
        self._hibernate_after = _or_never(options.hibernate_after)
        self._shutdown_after = _or_never(options.shutdown_after)
        self._retires_after = min(self._hibernate_after, self._shutdown_after)
        # Each in order of last use.
        self._active: OrderedDict[str, Activation] = OrderedDict()
        self._hibernated: OrderedDict[str, Activation] = OrderedDict()
        self._is_closed = False
        services.resident_set.add(self)

    # --- look-ups --------------------------------------------------------------------------------

    def key(self, address: str) -> ObjectKey:
        """The key of the object at an address."""
        return self.object_type.key(address)

    def activations(self) -> list[Activation]:
        """The activations in memory now."""
        return [*self._hibernated.values(), *self._active.values()]

    def find(self, address: str) -> Activation | None:
        """The activation of an object, if it is in memory."""
        return self._active.get(address) or self._hibernated.get(address)

    def use(self, address: str) -> Activation:
        """The activation of an object, for a call: made or woken if need be, and last in order.

        Between this and the place in the mailbox there must be no checkpoint: so concurrent first
        calls of an object meet at one activation, which loads once.

        Raises:
            TenantDropped: The object's tenant is being dropped.
            NotHere: The object isn't in memory, and lives in another process.
        """
        services = self._services
        if services.dropping:
            services.refuse_dropped(self.key(address))
        activation = self._active.get(address)
        if activation is not None:
            self._active.move_to_end(address)
            return activation
        activation = self._hibernated.pop(address, None)
        now = self._now()
        due = now + self._retires_after
        if activation is not None:
            self._active[address] = activation
            services.resident_set.expect(due)
            if self._notifier is not None:
                self._notifier.tell(Woken(activation.key))
            return activation
        key, placement = self.key(address), services.placement
        if placement is not None:
            placement.check(key)
        # First, or the newcomer itself might have to make room: it is idle still.
        services.resident_set.enter(due)
        activation = self._active[address] = self._new_activation(key, now)
        if placement is not None:
            placement.entered(activation)
        return activation

    def use_active(self, address: str) -> Activation | None:
        """`use` for an object that is in memory and isn't hibernated; None for others."""
        activation = self._active.get(address)
        if activation is not None:
            self._active.move_to_end(address)
        return activation

    def _new_activation(self, key: ObjectKey, now: float) -> Activation:
        if self._notifier is not None:
            self._notifier.tell(Entered(key))
        return Activation(key, self.object_type, self._services, self, now)

    # --- leaving memory --------------------------------------------------------------------------

    def left(self, activation: Resident, why: LeavingReason) -> None:
        """See `Residents.left`."""
        key = activation.key
        address = key.address
        if self.find(address) is not activation:
            return
        if self._active.pop(address, None) is None:
            del self._hibernated[address]
        self._services.resident_set.leave()
        if self._services.placement is not None:
            self._services.placement.left(activation)
        if self._notifier is not None and not self._is_closed:
            self._notifier.tell(Left(key, why))

    def retire(self, now: float) -> float:
        """See `Evictable.retire`."""
        next_due = NEVER
        for objects, after, retire in (
            (self._hibernated, self._shutdown_after, partial(Activation.shut_down, why="idle")),
            (self._active, self._shutdown_after, partial(Activation.shut_down, why="idle")),
            (self._active, self._hibernate_after, self._hibernate),
        ):
            while objects and after < NEVER:
                address, activation = next(iter(objects.items()))
                due = activation.last_used + after
                if due > now:
                    next_due = min(next_due, due)
                    break
                if activation.is_idle:
                    retire(activation)
                else:  # in use for longer than that: as if used just now, or a little later
                    activation.last_used = max(now, now + _BUSY_RETRY_SECONDS - after)
                    objects.move_to_end(address)
        return next_due

    def _hibernate(self, activation: Activation) -> None:
        key = activation.key
        del self._active[key.address]
        self._hibernated[key.address] = activation
        activation.hibernate()
        if self._notifier is not None:
            self._notifier.tell(Hibernated(key))

    def oldest_use(self) -> float:
        """See `Evictable.oldest_use`."""
        objects = self._hibernated or self._active
        return next(iter(objects.values())).last_used if objects else NEVER

    def evict_oldest(self, now: float) -> bool:
        """See `Evictable.evict_oldest`."""
        objects = self._hibernated or self._active
        address, activation = next(iter(objects.items()))
        if activation.is_idle:
            activation.shut_down("evicted")
            return True
        activation.last_used = now
        objects.move_to_end(address)
        return False

    def abandon(self) -> None:
        """Fail all that waits for an object, because the runtime closes."""
        for activation in self.activations():
            activation.abandon()
            if self._notifier is not None:
                self._notifier.tell(Left(activation.key, "closed"))
        self._is_closed = True


def _or_never(seconds: float | None) -> float:
    return NEVER if seconds is None else seconds
