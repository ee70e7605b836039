"""The default scheduler: a timing wheel over the table of alarms.

Prior art: Varghese and Lauck's wheels for the timers; the visibility timeout of message queues
(Amazon SQS) for claims, which lets one column say from when on an alarm can be had, be that
because it is due, because its handler failed, or because whoever claimed it seems to be dead;
Oban and other job queues on SQL for the table. Those poll; here the table is read ahead once per
polling interval, and what this runtime's own commits set goes to the wheel directly, so that an
alarm is late by one claim and no more.

Other runtimes on the same storage learn of an alarm when they look. They are told to look earlier
when this one leaves an alarm to them: one of a type that it doesn't serve, one that it has no room
for, and when it closes all of them. Not of those that it delivers itself, for they would compete
for these, and what two processes write to one object in turns is stale for one of them each time.

Three tasks: one claims and begins what is due, one reads ahead, one writes down what failed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ...storage import AlarmChanges, NewAlarm, Reader, StorageFault, StoredAlarm
from .._contract import Destination, Scheduler
from .delivery import Deliverer, MakeDeliverer
from .feed import Feed
from .in_flight import RECENT_SECONDS
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

CAPACITY = 16_384
"""How many alarms are kept in memory at most."""
CLOCK_POLL_SECONDS = 1.0
"""Seconds between looks at a clock that may jump."""
RETRY_SECONDS = 1.0
"""Seconds after which to try again what the storage refused."""
MIN_SECONDS_BETWEEN_READS = 0.1
"""Seconds from one look at the table to the next, at the least."""
_NEVER = 2**63


class WheelScheduler:
    """A `Scheduler` in this process.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage.
        runner: The reader's.
        reader: Where alarms are read.
        destination: Where alarms go.
        tell_others: Lets other runtimes on the storage know that there is one for them at a time.
        polling_interval: Seconds between looks at the table.
        claim_ttl: How many seconds a claim holds.
        capacity: How many alarms are kept in memory at most.
        make_deliverer: Makes what delivers them.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        runner: Runner,
        reader: Reader,
        destination: Destination,
        tell_others: Callable[[int], object],
        *,
        polling_interval: float,
        claim_ttl: float,
        capacity: int = CAPACITY,
        make_deliverer: MakeDeliverer = Deliverer,
    ) -> None:
        self._clock = clock
        self._runner = runner
        self._reader = reader
        self._destination = destination
        self._tell_others = tell_others
        self._polling_interval = polling_interval
        self._upcoming = UpcomingAlarms(clock.now(), capacity)
        self._to_fire = AutoResetEvent(loop)
        self._to_feed = AutoResetEvent(loop)
        self._sleeps_until = 0
        self.deliverer = make_deliverer(
            loop,
            clock,
            group_commit,
            self._upcoming,
            destination,
            round(claim_ttl * 1e6),
            self._to_fire,
        )
        # Twice the interval, so that the next look comes long before the horizon is reached.
        reach = round(2e6 * polling_interval)
        self._feed = Feed(
            clock,
            runner,
            reader,
            self._upcoming,
            self.deliverer.in_flight,
            destination,
            reach,
            self._to_fire,
        )
        self._is_stopped = False

    @property
    def waiting(self) -> int:
        """How many alarms are in memory and not yet under way."""
        return len(self._upcoming)

    # --- from outside ----------------------------------------------------------------------------

    async def schedule(self, key: ObjectKey, name: str, new: NewAlarm) -> None:
        """See `Scheduler.schedule`."""
        await self._destination.change_alarms(key, AlarmChanges(changed={name: new}))

    async def cancel(self, key: ObjectKey, name: str) -> None:
        """See `Scheduler.cancel`."""
        await self._destination.change_alarms(key, AlarmChanges(changed={name: None}))

    async def cancel_all(self, key: ObjectKey) -> None:
        """See `Scheduler.cancel_all`."""
        await self._destination.change_alarms(key, AlarmChanges(clear=True))

    async def list(self, key: ObjectKey) -> list[StoredAlarm]:
        """See `Scheduler.list`."""
        return await self._runner.run(lambda: self._reader.list_alarms(key))

    async def fire(self, key: AlarmKey) -> bool:
        """See `Scheduler.fire`."""
        return await self.deliverer.fire(key)

    # --- from commits ----------------------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Scheduler.committed`."""
        self.deliverer.committed(key, changes)
        for name in changes.acknowledged:
            self._upcoming.disarm(key.alarm(name))
        # If all were cancelled, some may be left here that can't be claimed any more.
        for name, new in changes.changed.items():
            alarm_key = key.alarm(name)
            if new is None:
                self._upcoming.disarm(alarm_key)
            else:
                self.expect(alarm_key, new.due_at)

    def uncertain(self) -> None:
        """See `Scheduler.uncertain`."""
        self.hinted(0)

    def dropped(self, tenant: str) -> None:
        """See `Scheduler.dropped`."""
        self.deliverer.dropped(tenant)

    def expect(self, key: AlarmKey, available_at: int) -> None:
        """Take note that an alarm is available at a time."""
        if self._destination.obstacle(key.type_name) is not None:
            self._tell_others(available_at)  # it is for those who serve its type
            return
        is_known = self._upcoming.arm(key, available_at)
        if not is_known and self._upcoming.is_cut:
            self._tell_others(available_at)  # maybe they come to it earlier
        if available_at < self._sleeps_until and (is_known or self._upcoming.is_cut):
            self._sleeps_until = available_at
            self._to_fire.set()

    def hinted(self, available_at: int) -> None:
        """See `Scheduler.hinted`."""
        self._upcoming.hint(available_at)
        self._to_fire.set()

    # --- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """See `Scheduler.run`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_feed)
            tasks.start_soon(self.deliverer.mend)
            await self._run_fire()

    def stop(self) -> None:
        """See `Scheduler.stop`."""
        self._is_stopped = True
        self.deliverer.stop()

    async def give_back(self) -> None:
        """See `Scheduler.give_back`."""
        await self.deliverer.give_back()
        self._tell_others(self._clock.now())

    async def _run_fire(self) -> None:
        upcoming = self._upcoming
        while True:
            now = self._clock.now()
            upcoming.advance(now, self.deliverer.lead)
            if upcoming.wants_more:
                self._to_feed.set()
            if upcoming.ready and self.deliverer.room and not self._is_stopped:
                try:
                    await self.deliverer.begin()
                except Exception as error:
                    _warn("claim", error)
                    await anyio.sleep(RETRY_SECONDS)
            else:
                await self._sleep(now)

    async def _sleep(self, now: int) -> None:
        self._sleeps_until = _NEVER
        seconds = math.inf
        if (next_time := self._upcoming.next_time()) is not None:
            self._sleeps_until = next_time - self.deliverer.lead
            seconds = max(0.0, (self._sleeps_until - now) / 1e6)
        if self._clock.may_jump:
            seconds = min(seconds, CLOCK_POLL_SECONDS)
        if self._upcoming.ready and not self._is_stopped:
            seconds = min(seconds, RECENT_SECONDS)  # then those under way make room
        await self._to_fire.wait(seconds)
        self._sleeps_until = 0

    async def _run_feed(self) -> None:
        while True:
            try:
                await self._feed.read()
            except Exception as error:
                _warn("look for", error)
                await anyio.sleep(RETRY_SECONDS)
            else:
                await anyio.sleep(MIN_SECONDS_BETWEEN_READS)
                await self._to_feed.wait(self._polling_interval)


def _warn(what: str, error: Exception) -> None:
    # That a storage refuses is told; anything else is a mistake, and needs its traceback.
    trace = None if isinstance(error, StorageFault) else error
    logger.warning("could not %s alarms that are due: %s", what, error, exc_info=trace)


if TYPE_CHECKING:

    def _is_a_scheduler(scheduler: WheelScheduler) -> Scheduler:
        return scheduler
