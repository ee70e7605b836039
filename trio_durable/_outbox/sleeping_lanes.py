"""Sleeping lanes: the names of the lanes whose first message isn't due.

Such a lane has no messages in memory and takes the place of none, or the lanes that fail would keep
all others out. Its name is kept, because a message that is sent into it must not overtake what
sleeps in the table. If there are too many names, a message of a lane that isn't in memory is no
longer handed over directly: its lane is read.

Pure: no I/O, and no time of its own.
"""

from __future__ import annotations

from .._keys import ObjectKey

MAX_NAMES = 10_000
"""Names in memory, of all receivers."""


class SleepingLanes:
    """Lanes that sleep, of all receivers."""

    def __init__(self) -> None:
        self._names: dict[ObjectKey, set[str]] = {}
        self._count = 0
        self.are_all = True
        """The name of each lane that sleeps is here."""

    def knows(self, to: ObjectKey, name: str) -> bool:
        """True if a lane of a receiver is known to sleep."""
        return name in self._names.get(to, ())

    def add(self, to: ObjectKey, name: str) -> None:
        """A lane has fallen asleep."""
        names = self._names.get(to, set())
        if name in names:
            return
        if self._count >= MAX_NAMES:
            self.are_all = False
            return
        self._names[to] = names
        names.add(name)
        self._count += 1

    def remove(self, to: ObjectKey, name: str) -> None:
        """A lane doesn't sleep any more, as far as is known."""
        names = self._names.get(to)
        if names is not None and name in names:
            names.remove(name)
            self._count -= 1
            if not names:
                del self._names[to]

    def forget(self, to: ObjectKey) -> None:
        """The lanes of a receiver are read again."""
        self._count -= len(self._names.pop(to, ()))

    def forget_tenant(self, tenant: str) -> None:
        """All lanes of a tenant are read again."""
        for to in [to for to in self._names if to.tenant == tenant]:
            self.forget(to)

    def clear(self) -> None:
        """All lanes are read again."""
        self._names.clear()
        self._count = 0
        self.are_all = True
