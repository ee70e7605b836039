"""The default scheduler: a timing wheel over the table of alarms.

Prior art: Varghese and Lauck's wheels for the timers; the visibility timeout of message queues
(Amazon SQS) for claims; Oban and other job queues on SQL for the table. The visibility timeout
lets one column say when an alarm can be claimed, be that because it is due, because its handler
failed, or because its claim has run out. Those queues poll. Here the table is read ahead once per
polling interval, and alarms that this runtime's own commits set enter the wheel directly, so an
alarm is late by one claim and no more.

Alarms that other runtimes on the same storage have set, or that it has no room for, are found when
the table is read.

Five tasks: one claims and delivers due alarms, one delivers suspects, one reads the table ahead,
one maintains claims, one checks the times of recurring alarms at the start.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import anyio

from ..._clock import Clock
from ..._eventloop.loop import Loop
from ..._eventloop.runner import Runner
from ..._eventloop.wakeup import AutoResetEvent
from ..._keys import AlarmKey, ObjectKey
from ..._persistence.group_commit import GroupCommit
from ..._telemetry.notifier import Notifier
from ...storage import (
    STOPPED,
    AlarmChanges,
    NewAlarm,
    Onto,
    Postponement,
    Reader,
    StorageFault,
)
from .._contract import Destination, Scheduler, SchedulerStatistics
from .._delivery.claims import RETRY_SECONDS, Claims
from .._delivery.from_outside import FromOutside
from .._delivery.in_flight import RECENT_SECONDS, InFlight, InFlightDeliveries
from .._delivery.start_check import StartCheck
from .deliverer import WheelDeliverer
from .feed import Feed
from .upcoming import UpcomingAlarms

logger = logging.getLogger("trio_durable.alarms")

CAPACITY = 16_384
"""The default maximum of alarms in memory."""
CLOCK_POLL_SECONDS = 1.0
"""The longest sleep under a clock that may jump."""
MIN_SECONDS_BETWEEN_READS = 0.1
_NEVER = 2**63


class WheelScheduler(FromOutside):
    """A `Scheduler` in this process.

    Args:
        loop: The event loop.
        clock: The time.
        group_commit: The way to the storage. The scheduler must be one of its listeners.
        runner: The reader's.
        reader: The side of the storage that reads alarms.
        destination: Handles alarms.
        polling_interval: Seconds between reads of the table.
        claim_ttl: How many seconds a claim holds unless it is renewed.
        capacity: How many alarms are kept in memory at most.
        notifier: The receiver of telemetry, if there are instruments.
    """

    def __init__(
        self,
        loop: Loop,
        clock: Clock,
        group_commit: GroupCommit,
        runner: Runner,
        reader: Reader,
        destination: Destination,
        *,
        polling_interval: float,
        claim_ttl: float,
        capacity: int = CAPACITY,
        notifier: Notifier | None = None,
    ) -> None:
        super().__init__(runner, reader, destination)
        self._clock = clock
        self._group_commit = group_commit
        self._polling_interval = polling_interval
        self._upcoming = UpcomingAlarms(clock.now(), capacity)
        self._in_flight = InFlightDeliveries()
        self._to_deliver = AutoResetEvent(loop)
        self._to_read = AutoResetEvent(loop)
        self._sleeps_until = 0
        """The time at which the delivering task wakes by itself; 0 while it is awake."""
        self._claims = Claims(
            loop,
            clock,
            group_commit,
            self._in_flight,
            round(claim_ttl * 1e6),
            self._settled,
            self._postponed,
        )
        self._deliverer = WheelDeliverer(
            loop,
            clock,
            group_commit,
            self._upcoming,
            self._in_flight,
            self._claims,
            destination,
            notifier,
        )
        self._feed = Feed(
            clock,
            runner,
            reader,
            self._upcoming,
            self._in_flight,
            destination,
            # Twice the interval, so that the next read comes long before the horizon is reached.
            round(2e6 * polling_interval),
            self._to_deliver,
        )
        self._start_check = StartCheck(loop, clock, runner, reader, destination, polling_interval)
        self._is_stopped = False

    # --- from outside ----------------------------------------------------------------------------

    async def fire(self, key: AlarmKey) -> bool:
        """See `Scheduler.fire`."""
        return await self._deliverer.fire(key)

    async def revive(self, key: AlarmKey) -> bool:
        """See `Scheduler.revive`."""
        now = self._clock.now()
        is_revived = False
        # Shielded, because an alarm that isn't expected here would wait for the next read.
        with anyio.CancelScope(shield=True):
            is_revived = await self._group_commit.perform(lambda writer: writer.revive(key, now))
            if is_revived:
                self._expect(key, now)
        return is_revived

    def statistics(self) -> SchedulerStatistics:
        """See `Scheduler.statistics`."""
        return SchedulerStatistics(
            waiting=len(self._upcoming),
            in_flight=len(self._in_flight),
            delivered=self._deliverer.delivered,
            failed=self._deliverer.failed,
        )

    # --- changes of the table --------------------------------------------------------------------

    def committed(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Scheduler.committed`."""
        self._in_flight.committed(key, changes)
        for name in changes.acknowledged:
            self._upcoming.disarm(key.alarm(name))
        # After ``clear``, alarms that are gone may be left in memory. Their claims will fail.
        for name, new in changes.changed.items():
            alarm_key = key.alarm(name)
            if new is None or new.recurrence == STOPPED:
                self._upcoming.disarm(alarm_key)
            elif new.is_conditional and self._may_be_kept(alarm_key, new):
                self.uncertain()
            else:
                self._expect(alarm_key, new.due_at)

    def _may_be_kept(self, key: AlarmKey, new: NewAlarm) -> bool:
        """True if the table may have another time for an alarm than that of a conditional change.

        An alarm that isn't known here isn't due before the horizon. So only the table tells of an
        alarm that is known, or of any while the table is read.
        """
        is_known = key in self._upcoming or key in self._in_flight
        replaces = bool(new.onto & (Onto.OUTDATED | Onto.LATE))
        return is_known or self._upcoming.is_filling or replaces

    def unsure(self, key: ObjectKey, changes: AlarmChanges) -> None:
        """See `Scheduler.unsure`."""
        self._in_flight.unsure(key, changes)
        self.uncertain()

    def uncertain(self) -> None:
        """See `Scheduler.uncertain`."""
        self._upcoming.hint(0)
        self._to_deliver.set()

    def acquired(self) -> None:
        """See `Scheduler.acquired`."""
        self.uncertain()
        self._start_check.request()

    def dropped(self, tenant: str) -> None:
        """See `Scheduler.dropped`."""
        self._in_flight.dropped(tenant)

    def _settled(self, flight: InFlight) -> None:
        """A delivery has ended, so another one may begin."""
        self._upcoming.unpark(flight.key.owner)
        self._to_deliver.set()

    def _postponed(self, flight: InFlight, record: Postponement) -> None:
        """An alarm is available again at another time."""
        # A superseded alarm is known by its new time already. But if the change came before the
        # claim, the alarm may have become due and been skipped: its next delivery got no claim,
        # because this one still held it.
        time = record.available_at
        if record.dead_firing is not None:
            time = record.dead_firing.next.due_at
        if time is not None and flight.key not in self._upcoming:
            self._upcoming.arm(flight.key, time)
        if flight.is_uncertain:
            # Reads of the table leave out what is in flight, as this was.
            self._upcoming.hint(0)

    def _expect(self, key: AlarmKey, available_at: int) -> None:
        """Deliver an alarm that the table has from now on."""
        if self._destination.obstacle(key.type_name) is not None or not self._destination.is_here(
            key
        ):
            return
        is_known = self._upcoming.arm(key, available_at)
        if available_at < self._sleeps_until and (is_known or self._upcoming.is_cut):
            self._sleeps_until = available_at
            self._to_deliver.set()

    # --- tasks -----------------------------------------------------------------------------------

    async def run(self) -> None:
        """See `Scheduler.run`."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._run_feed)
            tasks.start_soon(self._claims.maintain)
            tasks.start_soon(self._deliverer.suspects.run)
            tasks.start_soon(self._start_check.run)
            await self._run_deliverer()

    def stop(self) -> None:
        """See `Scheduler.stop`."""
        self._is_stopped = True
        self._deliverer.stop()

    async def give_back(self) -> None:
        """See `Scheduler.give_back`."""
        await self._claims.give_back()

    async def _run_deliverer(self) -> None:
        upcoming = self._upcoming
        while True:
            now = self._clock.now()
            upcoming.advance(now, self._claims.lead)
            if upcoming.wants_more:
                self._to_read.set()
            if upcoming.ready and self._deliverer.room and not self._is_stopped:
                try:
                    await self._deliverer.begin()
                except Exception as error:  # noqa: BLE001  # logged, and retried
                    _warn("claim", error)
                    self.uncertain()  # alarms that were taken are found in the table
                    await anyio.sleep(RETRY_SECONDS)
            else:
                await self._sleep(now)

    async def _sleep(self, now: int) -> None:
        self._sleeps_until = _NEVER
        seconds = math.inf
        if (next_time := self._upcoming.next_time()) is not None:
            self._sleeps_until = next_time - self._claims.lead
            seconds = max(0.0, (self._sleeps_until - now) / 1e6)
        if self._clock.may_jump:
            seconds = min(seconds, CLOCK_POLL_SECONDS)
        if self._upcoming.ready and not self._is_stopped:
            seconds = min(seconds, RECENT_SECONDS)  # by then, those in flight have made room
        await self._to_deliver.wait(seconds)
        self._sleeps_until = 0

    async def _run_feed(self) -> None:
        while True:
            try:
                await self._feed.read()
            except Exception as error:  # noqa: BLE001  # logged, and retried
                _warn("read", error)
                await anyio.sleep(RETRY_SECONDS)
            else:
                await anyio.sleep(MIN_SECONDS_BETWEEN_READS)
                await self._to_read.wait(self._polling_interval)


def _warn(what: str, error: Exception) -> None:
    # The text of a storage's fault says enough; any other error is a bug and needs its traceback.
    trace = None if isinstance(error, StorageFault) else error
    logger.warning("could not %s alarms that are due: %s", what, error, exc_info=trace)


if TYPE_CHECKING:

    def _is_a_scheduler(scheduler: WheelScheduler) -> Scheduler:
        return scheduler
