"""Hierarchical timing wheel: finds the keys that are due, at constant cost for each.

Prior art: Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (SOSP 1987), scheme 7; the
timers of tokio, which find an entry's slot from its due tick and the present one alone. A heap
would cost O(log n) for each insertion. To cancel an entry it needs a search, or keeps the entry
until its time; alarms are set and cancelled far more often than they fire.

The digits of a tick in base 64 are the hands of the wheel. An entry lies on the level of the
highest digit in which its due tick differs from the present one, in the slot of that digit. When
the present reaches the beginning of a slot's time, its entries cascade to lower levels; on the
lowest, a slot is one tick.

Pure: ticks are integers whose meaning is the caller's business, and time passes only when
`TimingWheel.advance` says so.

Invariants, from which it follows that an entry's place need not be stored:

- the entries of a level differ from the present in no higher digit, and are ahead of it in the
  level's own; so no slot of a higher level is due before one of a lower level,
- an occupied slot has its bit set in ``_occupied``,
- entries that were due when they were inserted lie in ``_overdue``.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_BITS = 6
_SLOTS = 1 << _BITS
_LEVELS = 8
MAX_TICK = (1 << _BITS * _LEVELS) - 1
"""With a tick of 1 ms, counted from 1970, the year 10889."""


class TimingWheel(Generic[K]):
    """Keys and the ticks they are due at.

    Args:
        now: The present tick, from 0 to `MAX_TICK`.
    """

    def __init__(self, now: int = 0) -> None:
        self._now = _checked(now)
        self._due: dict[K, int] = {}
        self._overdue: dict[K, None] = {}
        # Dictionaries for their order and O(1) removal.
        self._slots: list[dict[K, None]] = [{} for _ in range(_LEVELS * _SLOTS)]
        self._occupied = [0] * _LEVELS

    def __len__(self) -> int:
        return len(self._due)

    def __contains__(self, key: K) -> bool:
        return key in self._due

    @property
    def now(self) -> int:
        """The present tick."""
        return self._now

    def insert(self, key: K, due: int) -> None:
        """Let ``key`` be due at the tick ``due``, and only then. A tick of the past is due at once.

        Raises:
            ValueError: ``due`` is greater than `MAX_TICK`.
        """
        if due > MAX_TICK:
            raise ValueError(f"tick {due} is beyond the wheel's last, {MAX_TICK}")
        if key in self._due:
            self.cancel(key)
        self._due[key] = due
        if due <= self._now:
            self._overdue[key] = None
        else:
            self._place(key, due)

    def _place(self, key: K, due: int) -> None:
        level = ((due ^ self._now).bit_length() - 1) // _BITS
        position = (due >> level * _BITS) & (_SLOTS - 1)
        self._slots[level * _SLOTS + position][key] = None
        self._occupied[level] |= 1 << position

    def cancel(self, key: K) -> bool:
        """Take ``key`` out; return True if it was there, in whole or in part."""
        due = self._due.pop(key, None)
        if due is None:
            return False
        if due <= self._now:
            self._overdue.pop(key, None)  # an insertion may have been cut off
            return True
        level = ((due ^ self._now).bit_length() - 1) // _BITS
        position = (due >> level * _BITS) & (_SLOTS - 1)
        slot = self._slots[level * _SLOTS + position]
        slot.pop(key, None)
        if not slot:
            self._occupied[level] &= ~(1 << position)
        return True

    def next_tick(self) -> int | None:
        """A tick before which no entry is due; None if the wheel is empty.

        It is the next entry's tick, or if that is far away, the tick of a cascade before it.
        """
        if self._overdue:
            return self._now
        nearest = self._nearest()
        return None if nearest is None else nearest[1]

    def drop_last(self, count: int, beyond: int) -> int | None:
        """Take out the ``count`` keys that are due last, among the keys due after a tick.

        Returns:
            The first tick of which a key was taken out; None if no key is due so late.
        """
        first = None
        while count > 0 and (farthest := self._farthest()) is not None:
            level, _, number = farthest
            slot = self._slots[number]
            late = (key for key in slot if self._due[key] > beyond)
            dropped = sorted(late, key=self._due.__getitem__)[-count:]
            if dropped:
                first = self._due[dropped[0]]
            for key in dropped:
                del self._due[key], slot[key]
            count -= len(dropped)
            if slot:
                break
            self._occupied[level] ^= 1 << number % _SLOTS
        return first

    def _farthest(self) -> tuple[int, int, int] | None:
        """Level, tick and number of the occupied slot that time reaches last."""
        for level in reversed(range(_LEVELS)):
            occupied = self._occupied[level]
            if occupied:
                return self._slot(level, occupied.bit_length() - 1)
        return None

    def _slot(self, level: int, position: int) -> tuple[int, int, int]:
        shift = level * _BITS
        above = self._now >> shift + _BITS << shift + _BITS
        return level, above | position << shift, level * _SLOTS + position

    def _nearest(self) -> tuple[int, int, int] | None:
        """Level, tick and number of the occupied slot that time reaches first."""
        for level, occupied in enumerate(self._occupied):
            if occupied:
                return self._slot(level, (occupied & -occupied).bit_length() - 1)
        return None

    def advance(self, now: int) -> list[K]:
        """Let time pass up to and including the tick ``now``.

        Returns:
            The keys that are due, in the order of their ticks; they are no longer in the wheel.

        Raises:
            ValueError: ``now`` is in the past, or greater than `MAX_TICK`.
        """
        if _checked(now) < self._now:
            raise ValueError(f"tick {now} is in the past of {self._now}")
        due = sorted(self._overdue, key=self._due.__getitem__)
        self._overdue.clear()
        for key in due:
            del self._due[key]
        while (nearest := self._nearest()) is not None and nearest[1] <= now:
            level, self._now, number = nearest
            entries, self._slots[number] = self._slots[number], {}
            self._occupied[level] ^= 1 << number % _SLOTS
            for key in entries:
                tick = self._due[key]
                if tick > self._now:
                    self._place(key, tick)
                else:
                    del self._due[key]
                    due.append(key)
        self._now = now
        return due


def _checked(now: int) -> int:
    if not 0 <= now <= MAX_TICK:
        raise ValueError(f"the wheel's present is a tick from 0 to {MAX_TICK}, not {now}")
    return now
