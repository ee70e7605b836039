"""What is known to be due soon: the timing wheel as a cache of the table of alarms.

Ten million alarms in the table cost no memory, because the cache knows only those that are due
before its horizon, and no more than its capacity; if there are more, the horizon is nearer.

Invariant: every alarm of the table that is available before ``horizon`` is in the wheel, ready,
parked, or taken; but of an object that is crowded, with more alarms due than are parked of one,
the others are forgotten until those are done. Later ones may be known as well; and what is here
may be there no longer, for the claim decides. `feed` moves the horizon outwards,
`UpcomingAlarms.arm` keeps what lies before it complete.

Pure: time is an argument. Times are microseconds since 1970 UTC, the wheel's ticks milliseconds,
rounded up, so that nothing is early.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterable

from ..._keys import AlarmKey, Owner
from ...storage import DueAlarm
from .timing_wheel import TimingWheel

TICK_MICROSECONDS = 1000
MAX_PARKED_PER_OBJECT = 1024
"""How many alarms of one object are parked."""
_NEVER_READ = -(2**63)
_NEVER = 2**63
READ_AHEAD_MICROSECONDS = 250_000
"""How long before a hint's time to look: a look takes a moment, and may have to wait for one."""


class UpcomingAlarms:
    """Alarms and when they are available.

    Args:
        now: The time.
        capacity: How many alarms are known at most.
    """

    def __init__(self, now: int, capacity: int) -> None:
        self._capacity = capacity
        self._changed: set[AlarmKey] | None = None
        self._begin(now)

    def _begin(self, now: int) -> None:
        self._wheel: TimingWheel[AlarmKey] = TimingWheel(now // TICK_MICROSECONDS)
        # Ordered, because the first of a plain dict is looked for behind all that were before it.
        self._ready: OrderedDict[AlarmKey, None] = OrderedDict()
        self._parked: dict[Owner, dict[AlarmKey, None]] = {}
        self._parked_count = 0
        self._crowded: set[Owner] = set()
        self._wants_read = False
        self._read_at = _NEVER
        self.now = now
        """The latest time it was told."""
        self.horizon = _NEVER_READ
        self.is_cut = False
        """Whether the horizon is nearer than it was to be, for want of room."""

    def __len__(self) -> int:
        return len(self._wheel) + len(self._ready) + self._parked_count

    def __contains__(self, key: AlarmKey) -> bool:
        return key in self._wheel or key in self._ready or self._is_parked(key)

    def _is_parked(self, key: AlarmKey) -> bool:
        return key in self._parked.get(key.owner, ())

    @property
    def ready(self) -> int:
        """How many are due and not parked."""
        return len(self._ready)

    @property
    def reached(self) -> int:
        """The time by which all that is ready is available."""
        return self._wheel.now * TICK_MICROSECONDS

    @property
    def wants_more(self) -> bool:
        """Whether there may be anything beyond the horizon that is worth looking for now."""
        if self._wants_read or self._read_at <= self.reached:
            return True
        if self.is_cut and 2 * len(self) <= self._capacity:
            return True
        # What is ready is older than what is beyond a horizon in the past, so comes before it.
        return self.now >= self.horizon and not (self.is_cut and self._ready)

    # --- what is known ---------------------------------------------------------------------------

    def arm(self, key: AlarmKey, available_at: int) -> bool:
        """Let an alarm be ready at a time and only then. Whether that is before the horizon."""
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
        """Somebody else has set an alarm that is available at a time: look before that.

        Not before it must be, as one look may do for many. If it is beyond the horizon, or nobody
        has looked yet, the look that is to come anyhow does.
        """
        if available_at < self.horizon:
            tick = -(-(available_at - READ_AHEAD_MICROSECONDS) // TICK_MICROSECONDS)
            self._read_at = min(self._read_at, tick * TICK_MICROSECONDS)

    def begin_fill(self, horizon: int) -> None:
        """What is available before ``horizon`` is going to be told by `fill`, from the beginning.

        What changes from now on is known better here than where it is read, perhaps a moment ago.
        """
        self.horizon = horizon
        self.is_cut = False
        self._wants_read = False
        self._read_at = _NEVER
        self._changed = set()

    def fill(self, due: Iterable[DueAlarm], taken: Container[AlarmKey]) -> bool:
        """Take up what was read, but for what is ``taken``; False if there is no more room."""
        for alarm in due:
            key = alarm.key
            if self._changed is not None and key in self._changed:
                continue
            if key in taken or self._is_parked(key):
                continue
            if key in self._ready:
                if alarm.available_at <= self.reached:
                    continue
                self._unready(key)  # it was to be had once, and has another time by now
            if key.owner in self._crowded:
                continue
            if not self._insert(key, alarm.available_at):
                return False
        return True

    def end_fill(self) -> None:
        """There is no more."""
        self._changed = None

    def _insert(self, key: AlarmKey, available_at: int) -> bool:
        tick = -(-available_at // TICK_MICROSECONDS)
        if len(self) >= self._capacity and key not in self._wheel:
            # Let go of what is far away, if this is nearer. Of several at once, because it takes
            # time to find them.
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

    # --- what is due -----------------------------------------------------------------------------

    def advance(self, now: int, lead: int = 0) -> None:
        """Let time pass. What is available by now, or after a time of ``lead``, becomes ready.

        If ``now`` is earlier than it was, everything is forgotten, for some of what is ready no
        longer is; and the horizon begins anew.
        """
        if now < self.now:
            self._begin(now)
        self.now = now
        tick = max(self._wheel.now, (now + lead) // TICK_MICROSECONDS)
        self._ready.update(dict.fromkeys(self._wheel.advance(tick)))

    def take(self, is_full: Callable[[Owner], bool]) -> AlarmKey | None:
        """Take the first of what is ready, in the order in which it was available.

        Alarms of an object that ``is_full`` are parked until there is room for one, see `unpark`.
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
        """There is room for one alarm of an object: let the first that is parked be ready."""
        parked = self._parked.get(owner)
        if parked:
            key = next(iter(parked))
            self._unpark(key)
            self._ready[key] = None

    def _unready(self, key: AlarmKey) -> None:
        del self._ready[key]
        self.unpark(key.owner)  # in its stead

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
        """Let what was taken be ready still, before all else."""
        for key in reversed(list(keys)):
            self._ready[key] = None
            self._ready.move_to_end(key, last=False)

    def next_time(self) -> int | None:
        """A time until which nothing more becomes ready; None if nothing is known to."""
        tick = self._wheel.next_tick()
        times = [] if tick is None else [tick * TICK_MICROSECONDS]
        if self.is_cut and self.now < self.horizon:
            times.append(self.horizon)  # nobody knows what is due then
        if self.reached < self._read_at < _NEVER:
            times.append(self._read_at)
        return min(times, default=None)
