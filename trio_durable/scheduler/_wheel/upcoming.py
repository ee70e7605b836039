"""In-memory cache of the alarms due before the horizon: a timing wheel over the table of alarms.

Ten million alarms in the table cost no memory, because the cache holds only alarms that are due
before its horizon, and no more than its capacity. If there are more, the horizon is nearer.

Invariant: every alarm of the table that is available before ``horizon`` is in the wheel, ready,
parked, or taken. A crowded object is the exception: it has more alarms due than are parked of one
object, and the others are left to a later read. The cache may hold later alarms as well, and
alarms that the table has no more; a claim finds that out. `feed` moves the horizon outwards,
`UpcomingAlarms.arm` keeps the cache complete up to it.

Pure: time is an argument. Times are microseconds since 1970 UTC. The wheel's ticks are
milliseconds, rounded up, so that no alarm is early.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable

from ..._keys import AlarmKey, Owner
from ...storage import DueAlarm
from .timing_wheel import TimingWheel

TICK_MICROSECONDS = 1000
MAX_PARKED_PER_OBJECT = 1024
_NEVER_READ = -(2**63)
_NEVER = 2**63
READ_AHEAD_MICROSECONDS = 250_000
"""How long before a hint's time the table is read, because reading takes a moment."""


class UpcomingAlarms:
    """Alarms and the times from which they can be claimed.

    An alarm is in one of these states: in the wheel until its time, ready, or parked, if its object
    has as many deliveries as it may have. `take` takes it out.

    Args:
        now: The time.
        capacity: The maximum number of alarms.
    """

    def __init__(self, now: int, capacity: int) -> None:
        self._capacity = capacity
        self._changed: set[AlarmKey] | None = None
        self._begin(now)

    def _begin(self, now: int) -> None:
        self._wheel: TimingWheel[AlarmKey] = TimingWheel(now // TICK_MICROSECONDS)
        # An OrderedDict, because finding the first key of a plain dict takes a search past the
        # places of all keys that were removed before it.
        self._ready: OrderedDict[AlarmKey, None] = OrderedDict()
        self._parked: dict[Owner, dict[AlarmKey, None]] = {}
        self._parked_count = 0
        self._crowded: set[Owner] = set()
        self._wants_read = False
        self._read_at = _NEVER
        self.now = now
        """The time of the last `advance`."""
        self.horizon = _NEVER_READ
        self.is_cut = False
        """True if the horizon is nearer than `begin_fill` set it, because the cache was full."""

    def __len__(self) -> int:
        return len(self._wheel) + len(self._ready) + self._parked_count

    def __contains__(self, key: AlarmKey) -> bool:
        return key in self._wheel or key in self._ready or self._is_parked(key)

    def _is_parked(self, key: AlarmKey) -> bool:
        return key in self._parked.get(key.owner, ())

    @property
    def is_filling(self) -> bool:
        """True while the table is read."""
        return self._changed is not None

    @property
    def ready(self) -> int:
        """The number of alarms that are due and not parked."""
        return len(self._ready)

    @property
    def reached(self) -> int:
        """The time by which all ready alarms can be claimed."""
        return self._wheel.now * TICK_MICROSECONDS

    @property
    def wants_more(self) -> bool:
        """True if the table should be read now."""
        if self._wants_read or self._read_at <= self.reached:
            return True
        if self.is_cut and 2 * len(self) <= self._capacity:
            return True
        # Ready alarms are older than those beyond a horizon in the past, and are taken first.
        return self.now >= self.horizon and not (self.is_cut and self._ready)

    # --- filling ---------------------------------------------------------------------------------

    def arm(self, key: AlarmKey, available_at: int) -> bool:
        """Set the time of an alarm, and forget an earlier one.

        Returns:
            True if the alarm is held, because its time is before the horizon.
        """
        self.disarm(key)
        if available_at >= self.horizon or key.owner in self._crowded:
            return False
        return self._insert(key, available_at)

    def disarm(self, key: AlarmKey) -> None:
        """Forget an alarm."""
        if self._changed is not None:
            self._changed.add(key)
        self._wheel.cancel(key)
        if key in self._ready:
            self._unready(key)
        elif self._is_parked(key):
            self._unpark(key)

    def hint(self, available_at: int) -> None:
        """The table may have an alarm of this time: have it read shortly before.

        Not earlier, because one read may serve many hints. An alarm beyond the horizon is left to
        the read that moves the horizon, and any alarm before the first read to that.
        """
        if available_at < self.horizon:
            tick = -(-(available_at - READ_AHEAD_MICROSECONDS) // TICK_MICROSECONDS)
            self._read_at = min(self._read_at, tick * TICK_MICROSECONDS)

    def begin_fill(self, horizon: int) -> None:
        """Begin a read of all alarms that are available before ``horizon``.

        `fill` ignores alarms that are armed or disarmed from now on, since a page may have been
        read before the change.
        """
        self.horizon = horizon
        self.is_cut = False
        self._wants_read = False
        self._read_at = _NEVER
        self._changed = set()

    def fill(self, due: Iterable[DueAlarm], taken: Container[AlarmKey]) -> bool:
        """Add a page of alarms, except those ``taken``.

        Returns:
            False if there is no more room.
        """
        for alarm in due:
            key = alarm.key
            if self._changed is not None and key in self._changed:
                continue
            if key in taken or self._is_parked(key):
                continue
            if key in self._ready:
                if alarm.available_at <= self.reached:
                    continue
                self._unready(key)  # another runtime has set it to a later time
            if key.owner in self._crowded:
                continue
            if not self._insert(key, alarm.available_at):
                return False
        return True

    def end_fill(self) -> None:
        """End the read."""
        self._changed = None

    def _insert(self, key: AlarmKey, available_at: int) -> bool:
        tick = -(-available_at // TICK_MICROSECONDS)
        if len(self) >= self._capacity and key not in self._wheel:
            # Drop the last alarms if this one is nearer; several at once, because finding them
            # takes time.
            last = self._wheel.drop_last(1 + self._capacity // 16, tick)
            if last is None:
                self._cut(available_at)
                return False
            self._cut((last - 1) * TICK_MICROSECONDS + 1)
        self._wheel.insert(key, tick)
        return True

    def _cut(self, horizon: int) -> None:
        self.horizon = min(self.horizon, horizon)
        self.is_cut = True

    # --- due alarms ------------------------------------------------------------------------------

    def advance(self, now: int, lead: int = 0) -> None:
        """Let time pass. Alarms that are available by ``now`` plus ``lead`` become ready.

        If ``now`` is earlier than before, the cache is emptied, because ready alarms may not be due
        any more. It is complete again after the next read.
        """
        if now < self.now:
            self._begin(now)
        self.now = now
        tick = max(self._wheel.now, (now + lead) // TICK_MICROSECONDS)
        self._ready.update(dict.fromkeys(self._wheel.advance(tick)))

    def take(self, is_full: Callable[[Owner], bool]) -> AlarmKey | None:
        """Take the first ready alarm, in the order of their times; None if none is ready.

        Alarms of an object that ``is_full`` are parked until `unpark` is called.
        """
        while self._ready:
            key, _ = self._ready.popitem(last=False)
            owner = key.owner
            if not is_full(owner):
                return key
            parked = self._parked.setdefault(owner, {})
            if len(parked) < MAX_PARKED_PER_OBJECT:
                parked[key] = None
                self._parked_count += 1
            else:
                self._crowded.add(owner)
        return None

    def unpark(self, owner: Owner) -> None:
        """An object can take another delivery: make its first parked alarm ready."""
        parked = self._parked.get(owner)
        if parked:
            key = next(iter(parked))
            self._unpark(key)
            self._ready[key] = None

    def _unready(self, key: AlarmKey) -> None:
        del self._ready[key]
        self.unpark(key.owner)  # which takes its place

    def _unpark(self, key: AlarmKey) -> None:
        owner = key.owner
        parked = self._parked[owner]
        del parked[key]
        self._parked_count -= 1
        if not parked:
            del self._parked[owner]
            if owner in self._crowded:
                self._crowded.remove(owner)
                self._wants_read = True

    def put_back(self, keys: Iterable[AlarmKey]) -> None:
        """Make alarms that were taken ready again, before all others."""
        for key in reversed(list(keys)):
            self._ready[key] = None
            self._ready.move_to_end(key, last=False)

    def next_time(self) -> int | None:
        """The time at which to call `advance` next; None if nothing is known to become due."""
        tick = self._wheel.next_tick()
        times = [] if tick is None else [tick * TICK_MICROSECONDS]
        if self.is_cut and self.now < self.horizon:
            times.append(self.horizon)  # the table has to be read then
        if self.reached < self._read_at < _NEVER:
            times.append(self._read_at)
        return min(times, default=None)
