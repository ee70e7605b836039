"""What was promised, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from .child import Report
from .protocol import ALARM


@attrs.frozen
class Audit:
    """What a new child found, compared with what was promised since the last look."""

    acknowledged: int
    unanswered: int
    """Requested, and not acknowledged when the process died."""
    recovered: int
    """Acknowledged changes that are there."""
    completed: int
    """Unanswered changes that are there."""
    missing: int
    """Acknowledged changes that are gone."""
    surplus: int
    """Changes that nobody requested."""


class Ledger:
    """How many changes of one kind were requested and acknowledged, object by object."""

    def __init__(self, objects: int) -> None:
        self._before = [0] * objects
        self._requested = [0] * objects
        self._acknowledged = [0] * objects

    def request(self, objects: Iterable[int]) -> None:
        """Note requests."""
        for number in objects:
            self._requested[number] += 1

    def acknowledge(self, objects: Iterable[int]) -> None:
        """Note acknowledgements."""
        for number in objects:
            self._acknowledged[number] += 1

    def audit(self, found: Sequence[int]) -> Audit:
        """Compare with how many are ``found`` after a restart, and go on from there."""
        recovered = completed = missing = surplus = 0
        for count, before, acknowledged, requested in zip(
            found, self._before, self._acknowledged, self._requested, strict=True
        ):
            new = count - before
            recovered += max(0, min(new, acknowledged))
            completed += max(0, min(new, requested) - acknowledged)
            missing += max(0, acknowledged - new)
            surplus += max(0, new - requested)
        total_acknowledged = sum(self._acknowledged)
        unanswered = sum(self._requested) - total_acknowledged
        self._before = list(found)
        self._requested = [0] * len(found)
        self._acknowledged = [0] * len(found)
        return Audit(total_acknowledged, unanswered, recovered, completed, missing, surplus)


class Ledgers:
    """The ledgers of deposits and of alarms."""

    def __init__(self, accounts: int, diaries: int) -> None:
        self.deposits = Ledger(accounts)
        self.alarms = Ledger(diaries)

    def request(self, requests: Sequence[int]) -> None:
        """Note requests of both kinds."""
        self.deposits.request(request for request in requests if not request & ALARM)
        self.alarms.request(request ^ ALARM for request in requests if request & ALARM)

    def acknowledge(self, requests: Sequence[int]) -> int:
        """Note acknowledgements of both kinds; how many are of alarms."""
        self.deposits.acknowledge(request for request in requests if not request & ALARM)
        alarms = [request ^ ALARM for request in requests if request & ALARM]
        self.alarms.acknowledge(alarms)
        return len(alarms)


@attrs.frozen
class AlarmAudit:
    """What became of the alarms that one child has set, when all is over."""

    before: int
    """Fired before the kill."""
    while_dead: list[float]
    """How many seconds late those were that came due while nobody was there."""
    after: list[float]
    """The same of those that came due in a later child's life."""
    missing: int
    """Set, but never fired; or acknowledged, but gone."""
    doubled: int
    """Fired more than once."""
    early: int

    @property
    def fired(self) -> int:
        """All that fired."""
        return self.before + len(self.while_dead) + len(self.after)


def audit_alarms(last: Report, process: int, up_at: Mapping[int, float], lost: int) -> AlarmAudit:
    """What the last report says of the alarms that a process set.

    Args:
        last: The report.
        process: The process.
        up_at: When each process had started.
        lost: How many of the alarms that were acknowledged aren't in the file.
    """
    before = doubled = early = 0
    while_dead: list[float] = []
    after: list[float] = []
    for reminder in last.all_reminders:
        if reminder.set_by != process:
            continue
        if not reminder.fired:
            lost += 1
            continue
        doubled += len(reminder.fired) > 1
        fired_by, fired_at = reminder.fired[0]
        early += fired_at < reminder.due_at
        if fired_by == process:
            before += 1
        elif reminder.due_at < up_at[fired_by]:
            while_dead.append(fired_at - reminder.due_at)
        else:
            after.append(fired_at - reminder.due_at)
    return AlarmAudit(before, while_dead, after, lost, doubled, early)
