"""Destination of alarms whose handlers are scripted by the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import anyio
import attrs

from ..._alarms.alarm import Alarm
from ..._alarms.delivery import Delivery
from ..._alarms.recurrence import Recurrence, alarm_name
from ..._alarms.retry import Retry
from ..._clock import Clock
from ..._errors import AlarmSuperseded, RuntimeClosed
from ..._eventloop.loop import Loop, Waiter
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ..._persistence.ticket import Ticket
from ..._telemetry.events import Turn
from ...storage import AlarmChanges

Script = Callable[[Delivery], Awaitable[AlarmChanges | None]]
"""Handler of an alarm. Returns changes to commit together with the acknowledgement."""


@attrs.frozen
class Handled:
    """One call of a handler."""

    key: AlarmKey
    alarm: Alarm
    at: float
    """Seconds since the test began, by the loop's clock."""
    late: float
    """Seconds since the alarm was due, by the wall clock."""


class _Object:
    """The `TicketOwner` of an object's commits. It has alarms and no state."""

    revision: int | None = None
    epoch = 0
    gate: Ticket | None = None
    turn_event: Turn | None = None

    def __init__(self, key: ObjectKey) -> None:
        self.key = key

    def committed(self, ticket: Ticket) -> None:
        """See `TicketOwner.committed`."""

    def commit_failed(self) -> None:
        """See `TicketOwner.commit_failed`."""


class ScriptedDestination:
    """Acknowledges each alarm at once, unless a script handles it.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        start: Starts a task that ends with the runtime.
        types: The types that are served.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        start: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        types: set[str],
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._group_commit = group_commit
        self._start = start
        self._began = loop.now()
        self._objects: dict[ObjectKey, _Object] = {}
        self._running: set[Waiter] = set()
        self.types = types
        self.retry: Retry = Retry()
        """The backoff of all alarms."""
        self.recurrences_by_name: dict[str, Recurrence] = {}
        """The schedules of recurring alarms, by name."""
        self.elsewhere: set[str] = set()
        """The ids of objects whose alarms another process delivers."""
        self.scripts: dict[str, Script] = {}
        """Handlers by the names of alarms."""
        self.refusals: list[Exception] = []
        """Errors that the next calls of `deliver` raise."""
        self.handled: list[Handled] = []
        """The calls of handlers, in order."""

    # --- the contract ----------------------------------------------------------------------------

    def is_here(self, key: AlarmKey) -> bool:
        """See `Destination.is_here`."""
        return key.object_id not in self.elsewhere

    def now(self) -> int:
        """The wall time, in microseconds since 1970 UTC."""
        return self._clock.now()

    def obstacle(self, type_name: str) -> str | None:
        """See `Destination.obstacle`."""
        return None if type_name in self.types else "this test doesn't serve it"

    def retry_of(self, key: AlarmKey) -> Retry:  # the same for all
        """See `Destination.retry_of`."""
        return self.retry

    def recurrence_of(self, key: AlarmKey) -> Recurrence | None:
        """See `Destination.recurrence_of`."""
        return self.recurrences_by_name.get(key.name)

    def recurrences(self) -> Iterable[tuple[str, str, Recurrence]]:
        """See `Destination.recurrences`."""
        return [(each, *item) for each in self.types for item in self.recurrences_by_name.items()]

    def deliver(self, delivery: Delivery, waiter: Waiter) -> None:
        """See `Destination.deliver`."""
        if self.refusals:
            raise self.refusals.pop(0)
        is_letter = alarm_name(delivery.key.name) in self.recurrences_by_name
        if delivery.is_skipped or (delivery.is_of_other_release and not is_letter):
            changes = delivery.discarded(self._clock.now())
            self._submit(delivery.key.object_key, changes).hold(waiter)
            return

        async def turn() -> None:
            await self._handle(delivery, waiter)

        self._running.add(waiter)
        self._start(turn)

    async def change_alarms(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Destination.change_alarms`."""
        await self.commit(key, changes)

    # --- turns -----------------------------------------------------------------------------------

    async def commit(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """Commit changes of an object's alarms, as a turn does; return when they are durable.

        Raises:
            PersistenceError: The commit failed.
        """
        waiter = self._loop.waiter()
        self._submit(key, changes).hold(waiter)
        await waiter.wait()

    def _submit(self, key: ObjectKey, changes: AlarmChanges) -> Ticket:
        owner = self._objects.setdefault(key, _Object(key))
        return self._group_commit.submit(owner, None, False, changes)

    async def _handle(self, delivery: Delivery, waiter: Waiter) -> None:
        key = delivery.key
        try:
            if delivery.superseded:
                raise AlarmSuperseded(key.object_key, key.name)
            now, due_at = self._clock.now(), delivery.alarm.due_at
            late = now / 1e6 - due_at.timestamp()
            at = self._loop.now() - self._began
            self.handled.append(Handled(key, delivery.alarm, at, late))
            script = self.scripts.get(key.name)
            changes = None
            if script is not None:
                changes = await script(delivery)
            if not delivery.acknowledged:
                changes = changes or AlarmChanges()
                changes.acknowledged[key.name] = delivery.claim
                following = delivery.following(self._clock.now())
                if following is not None and not changes.supersedes(key.name):
                    changes.changed[key.name] = following
            if changes is not None:
                self._submit(key.object_key, changes).hold(waiter)
            else:
                waiter.settle()
        except Exception as error:  # noqa: BLE001  # scripts may raise anything
            waiter.fail(error)
        finally:
            self._running.discard(waiter)

    def abandon(self) -> None:
        """Fail all running turns, as a closing runtime does."""
        for waiter in list(self._running):
            waiter.fail(RuntimeClosed("the test closed the runtime"))

    # --- scripts ---------------------------------------------------------------------------------

    def fail(self, name: str, times: int) -> None:
        """Script an alarm's handler to raise the next ``times`` times."""
        left = times

        async def script(_delivery: Delivery) -> None:
            nonlocal left
            if left:
                left -= 1
                raise ValueError("on purpose")

        self.scripts[name] = script

    def hold(self, name: str) -> Held:
        """Script an alarm's handler to wait until it is released."""
        held = Held()
        self.scripts[name] = held.script
        return held


class Held:
    """A handler that waits until the test releases it."""

    def __init__(self) -> None:
        self._released = anyio.Event()
        self.deliveries: list[Delivery] = []
        """The deliveries that have begun."""

    async def script(self, delivery: Delivery) -> None:
        """See `Script`."""
        self.deliveries.append(delivery)
        await self._released.wait()

    def release(self) -> None:
        """Let the handler return, now and in later calls."""
        self._released.set()
