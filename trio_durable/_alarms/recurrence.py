"""Recurrence: the schedule of a recurring alarm, and the time of its next firing.

Pure: time is an argument, in microseconds since 1970 UTC. A recurring alarm is one row, which has
the time of its next firing or is being delivered. The end of a firing sets the next one in the same
commit: the turn that handles it, a skip, or the record of its death. All of them call
`Recurrence.following`.

The row's ``recurrence`` says where its time comes from. It is the fingerprint of the schedule, or
one of the words here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from hashlib import blake2b
from typing import Literal, get_args

import attrs

from .._clock import EARLIEST, LATEST, instant
from .._durations import interval_seconds, seconds
from .._keys import AlarmKey, ObjectKey
from ..storage import MOVED, STOPPED, AlarmChanges, AlarmRow, NewAlarm, Onto, StoredAlarm
from .cron import Cron, checked_cron

Missed = Literal["once", "skip", "all"]
"""The treatment of firings whose time has passed while they could not be delivered."""

DEFAULT_GRACE = 60.0
"""How late a firing may be, in seconds, before ``missed="skip"`` skips it."""
MOST_MISSED = 1000
"""How many missed firings ``missed="all"`` delivers."""
TOLERANCE = 60_000_000
"""A firing is too late if it is after the next time that is counted from so many microseconds from
now. A clock may be behind that of the member that has set it, or was read before it was set."""
OVERRUN = "overrun"
"""The mark of a firing whose time passed while the last one ran. It isn't skipped."""
FIRING = "firing"
"""The mark of a single firing that has died, kept under a name of its own."""


@attrs.frozen
class Every:
    """An interval, counted from the due time of the last firing."""

    interval: int
    """In microseconds."""

    @property
    def rules(self) -> str:
        """See `Cron.rules`."""
        return f"every {self.interval}"

    def __str__(self) -> str:
        return f"every {timedelta(microseconds=self.interval)}"


@attrs.frozen
class LeftOut:
    """Firings that ``missed="all"`` doesn't deliver because there are too many."""

    first: int
    """The time of the first one."""
    before: int
    """They are all before this time."""


@attrs.frozen
class Recurrence:
    """The declaration of a recurring alarm."""

    schedule: Cron | Every
    missed: Missed = "once"
    grace: int = round(DEFAULT_GRACE * 1e6)
    """See `DEFAULT_GRACE`. In microseconds."""
    spread: int = 0
    """In microseconds. Firings of an object are late by a part of it that is always the same."""
    autostart: bool = False

    def __str__(self) -> str:
        return str(self.schedule)

    @property
    def fingerprint(self) -> str:
        """A hash of all that times depend on: schedule, spread, and the rules of the zone."""
        text = f"{self.schedule.rules} {self.spread}"
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def offset(self, key: ObjectKey) -> int:
        """How much an object's firings are later than the schedule: from 0 up to ``spread``."""
        if not self.spread:
            return 0
        text = f"{key.tenant}\0{key.type_name}\0{key.object_id}"
        digest = blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest) % self.spread

    # --- times -----------------------------------------------------------------------------------

    def first(self, key: ObjectKey, now: int) -> int:
        """The time of the first firing of a recurrence that begins now."""
        offset = self.offset(key)
        if isinstance(self.schedule, Every):
            return min(now + self.schedule.interval + offset, LATEST)
        return self._after(self.schedule, now, offset)

    def latest(self, now: int) -> int:
        """The latest time at which the next firing of any object may be, see `TOLERANCE`."""
        now += TOLERANCE
        if isinstance(self.schedule, Every):
            return min(now + self.schedule.interval + self.spread, LATEST)
        return min(self._after(self.schedule, now, 0) + self.spread, LATEST)

    def next_time(self, key: ObjectKey, due_at: int, now: int) -> int:
        """The first time of the schedule after both ``due_at`` and ``now``."""
        latest = max(due_at, now)
        if isinstance(self.schedule, Every):
            # From the due time on, so that no delay adds up.
            interval = self.schedule.interval
            return min(due_at + ((latest - due_at) // interval + 1) * interval, LATEST)
        return self._after(self.schedule, latest, self.offset(key))

    def _after(self, cron: Cron, at: int, offset: int) -> int:
        found = cron.after(at - offset)
        if found is None:
            return LATEST
        assert found + offset > at, f"{cron} is to recur at {instant(found)}, which has passed"
        return min(found + offset, LATEST)

    def next_of_all(self, key: ObjectKey, due_at: int, now: int) -> tuple[int, LeftOut | None]:
        """The first time after ``due_at``, unless it leaves more than `MOST_MISSED` until ``now``.

        Then the first time of the last `MOST_MISSED`, and the firings that are left out for it.
        """
        following = self.next_time(key, due_at, due_at)
        if isinstance(self.schedule, Every):
            interval = self.schedule.interval
            surplus = (now - following) // interval + 1 - MOST_MISSED
            if surplus <= 0:
                return following, None
            kept = following + surplus * interval
            return kept, LeftOut(following, kept)
        if now < following or self.schedule.most_within(now - following) <= MOST_MISSED:
            return following, None
        offset = self.offset(key)
        last = self.schedule.last_until(now - offset, MOST_MISSED)
        if len(last) < MOST_MISSED or last[0] + offset <= following:
            return following, None
        kept = last[0] + offset
        return kept, LeftOut(following, kept)

    # --- firings ---------------------------------------------------------------------------------

    def begin(self, key: ObjectKey, now: int, onto: Onto) -> NewAlarm:
        """The alarm that begins the recurrence now, or corrects its next time."""
        return NewAlarm(self.first(key, now), None, self.fingerprint, onto)

    def following(
        self, key: ObjectKey, due_at: int, began: int, now: int
    ) -> tuple[NewAlarm, LeftOut | None]:
        """The firing after one that was due at ``due_at``.

        Args:
            key: The object.
            due_at: The time of the firing that ends.
            began: When its last delivery began. What is missed from then on isn't: it is due when
                this one ends.
            now: The time.
        """
        left_out: LeftOut | None = None
        if self.missed == "all":
            next_at, left_out = self.next_of_all(key, due_at, now)
        else:
            next_at = self.next_time(key, due_at, min(began, now))
        is_overrun = self.missed == "skip" and next_at <= now
        return NewAlarm(next_at, None, OVERRUN if is_overrun else self.fingerprint), left_out

    def skips(self, stored: StoredAlarm, now: int) -> bool:
        """True if a firing isn't delivered because it is too late.

        One that has begun before is: it was in time.
        """
        return (
            self.missed == "skip"
            and stored.recurrence != OVERRUN
            and not stored.failures
            and stored.crashes is None
            and now - stored.due_at > self.grace
        )

    # --- stored rows -----------------------------------------------------------------------------

    def corrected(self, row: AlarmRow, now: int) -> NewAlarm | None:
        """A replacement for a row whose time isn't that of this schedule; None if it may stay.

        A firing that is due already happens. One that was moved stays, too.
        """
        stored = row.alarm
        if stored.recurrence in (MOVED, STOPPED):
            return None
        key = stored.key.object_key
        is_late = stored.due_at > self.first(key, now + TOLERANCE)
        new = self.begin(key, now, Onto.OUTDATED | Onto.LATE if is_late else Onto.OUTDATED)
        differs = is_late or stored.recurrence != new.recurrence
        return new if row.status == "dead" or (stored.due_at > now and differs) else None


def corrections(
    recurrences: Mapping[str, Recurrence],
    key: ObjectKey,
    stored: Iterable[AlarmRow | None],
    now: int,
    *,
    starts: bool,
) -> AlarmChanges | None:
    """The changes that make an object's recurring alarms agree with their declarations.

    Args:
        recurrences: The declarations, by the alarms' names.
        key: The object.
        stored: The rows of these names, in the same order.
        now: The time.
        starts: Set what is missing, if it is declared with ``autostart``.
    """
    changed: dict[str, NewAlarm | None] = {}
    for (name, recurrence), row in zip(recurrences.items(), stored, strict=True):
        if row is None:
            new = recurrence.begin(key, now, Onto.NOTHING) if starts else None
            new = new if recurrence.autostart else None
        else:
            new = recurrence.corrected(row, now)
        if new is not None:
            changed[name] = new
    return AlarmChanges(changed=changed) if changed else None


def autostarts(
    recurrences: Mapping[str, Recurrence], key: ObjectKey, now: int
) -> AlarmChanges | None:
    """The changes that begin the recurrences with ``autostart``, unless they are set or stopped."""
    return corrections(recurrences, key, [None] * len(recurrences), now, starts=True)


def stopped(now: int) -> NewAlarm:
    """The mark of a recurrence that was cancelled, so that it isn't begun again by itself."""
    return NewAlarm(now, None, STOPPED)


def with_marks(
    recurrences: Mapping[str, Recurrence], changes: AlarmChanges, now: int
) -> AlarmChanges:
    """``changes`` by a user, with a mark for each recurring alarm that they cancel."""
    if not recurrences:
        return changes
    marked = AlarmChanges(acknowledged=changes.acknowledged, clear=changes.clear)
    if changes.clear:
        marked.changed.update((name, stopped(now)) for name in recurrences)
    for name, new in changes.changed.items():
        marked.changed[name] = stopped(now) if new is None and name in recurrences else new
    return marked


# --- names of firings that have died -------------------------------------------------------------

_AT = "@"
_LETTER = re.compile(r"(\w+)@\d{1,4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
"""Such a name. Handlers of recurring alarms are methods, whose names have no other characters."""


def letter_name(key: AlarmKey, due_at: int) -> str:
    """The name under which a firing that has died is kept: the alarm's, and the firing's time."""
    due_at = min(max(due_at, EARLIEST), LATEST)  # of a corrupt row
    return f"{key.name}{_AT}{instant(due_at).strftime('%Y-%m-%dT%H:%M:%S.%fZ')}"


def alarm_name(name: str) -> str:
    """The name of the alarm that a firing belongs to which has died; ``name`` for any other."""
    letter = _LETTER.fullmatch(name)
    return name if letter is None else letter[1]


# --- declarations --------------------------------------------------------------------------------

MAX_NAME_BYTES = 480
"""Of a recurring alarm: the name of a firing is longer by a time."""


def checked_recurrence(
    *,
    cron: object,
    every: object,
    zone: object,
    missed: object,
    grace: object,
    spread: object,
    autostart: object,
) -> Recurrence | None:
    """The recurrence that ``@alarm`` declares; None if it declares none.

    Arguments that weren't given are None.

    Raises:
        ValueError: An argument is invalid. The message begins with its name.
    """
    options = {
        "zone": zone,
        "missed": missed,
        "grace": grace,
        "spread": spread,
        "autostart": autostart,
    }
    if cron is None and every is None:
        for name, given in options.items():
            if given is not None:
                raise ValueError(f"{name} needs a schedule: give cron or every, too")
        return None
    if cron is not None and every is not None:
        raise ValueError("cron and every are both given; give one of them")
    if every is not None and zone is not None:
        raise ValueError("zone is for cron: every counts time, which is the same everywhere")
    if missed is not None and missed not in get_args(Missed):
        raise ValueError(f'missed must be "once", "skip" or "all", not {missed!r:.60}')
    if grace is not None and missed != "skip":
        raise ValueError('grace is for missed="skip"; leave it out')
    if autostart is not None and not isinstance(autostart, bool):
        raise ValueError(f"autostart must be True or False, not {autostart!r:.60}")
    return Recurrence(
        checked_cron(cron, "UTC" if zone is None else zone) if cron is not None else _every(every),
        "once" if missed is None else missed,  # type: ignore[arg-type]  # checked above
        _microseconds(DEFAULT_GRACE if grace is None else grace, "grace"),
        0 if spread is None else _spread(spread),
        bool(autostart),
    )


def _every(given: object) -> Every:
    length = interval_seconds(given, "every")  # type: ignore[arg-type]  # which it checks
    if length < 1:
        raise ValueError(f"every must be a second or more, not {given!r}; keep a task for less")
    return Every(_microseconds(given, "every"))


def _spread(given: object) -> int:
    spread = _microseconds(given, "spread")
    if spread <= 0:
        raise ValueError(f"spread must be longer than zero, not {given!r}; leave it out for none")
    return spread


def _microseconds(given: object, name: str) -> int:
    length = seconds(given, name)  # type: ignore[arg-type]  # which it checks
    if isinstance(given, timedelta):
        return given // timedelta(microseconds=1)
    if length > 1e9:
        raise ValueError(f"{name} must be a shorter time, not {given!r}")
    return round(length * 1e6)
