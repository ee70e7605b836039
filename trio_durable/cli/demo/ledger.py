"""Ledgers of acknowledged changes, and audits that compare them with the stored data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import attrs

from .bank import Bank
from .child import Report
from .protocol import ALARM, OPENING, payee


@attrs.frozen
class Audit:
    """The changes since the last audit: acknowledged ones against stored ones."""

    acknowledged: int
    unanswered: int
    """Changes requested but not acknowledged before the kill."""
    recovered: int
    """Acknowledged changes that are stored."""
    completed: int
    """Unanswered changes that are stored."""
    missing: int
    """Acknowledged changes that are lost."""
    surplus: int
    """Stored changes that were never requested."""


class Ledger:
    """The numbers of requested and acknowledged changes of one kind, per object."""

    def __init__(self, objects: int) -> None:
        self._before = [0] * objects
        self._requested = [0] * objects
        self._acknowledged = [0] * objects

    def request(self, objects: Iterable[int]) -> None:
        """Record requests."""
        for number in objects:
            self._requested[number] += 1

    def acknowledge(self, objects: Iterable[int]) -> None:
        """Record acknowledgements."""
        for number in objects:
            self._acknowledged[number] += 1

    def audit(self, found: Sequence[int]) -> Audit:
        """Compare with the numbers ``found`` after a restart, and continue from these."""
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
    """The ledgers of transfers and of alarms."""

    def __init__(self, accounts: int, diaries: int) -> None:
        self.transfers = Ledger(accounts)
        self.alarms = Ledger(diaries)

    def request(self, requests: Sequence[int]) -> None:
        """Record requests of both kinds."""
        self.transfers.request(request for request in requests if not request & ALARM)
        self.alarms.request(request ^ ALARM for request in requests if request & ALARM)

    def acknowledge(self, requests: Sequence[int]) -> int:
        """Record acknowledgements of both kinds, and return the number of those for alarms."""
        self.transfers.acknowledge(request for request in requests if not request & ALARM)
        alarms = [request ^ ALARM for request in requests if request & ALARM]
        self.alarms.acknowledge(alarms)
        return len(alarms)


@attrs.frozen
class MoneyAudit:
    """The money after a kill, and the transfers that did not arrive exactly once."""

    bank: Bank
    off_by: int
    """The difference of all money from what the accounts had at first."""
    missing: int
    """The number of transfers that left an account and are nowhere."""
    doubled: int
    """The number of transfers that arrived more than once, or were never sent."""


class Arrivals:
    """The number of transfers that each account must get, from those that were sent.

    A sum alone would hide a loss that a double makes up for. So each account is compared.
    """

    def __init__(self, accounts: int) -> None:
        self._due = [0] * accounts
        self._counted = [0] * accounts

    def audit(self, bank: Bank) -> MoneyAudit:
        """Compare with what the file has."""
        accounts = len(self._due)
        for payer, sent in enumerate(bank.sent):
            for transfer in range(self._counted[payer] + 1, sent + 1):
                self._due[payee(payer, transfer, accounts)] += 1
            self._counted[payer] = sent
        surplus = [got - due for got, due in zip(bank.arrivals, self._due, strict=True)]
        return MoneyAudit(
            bank,
            off_by=bank.total - OPENING * accounts,
            missing=-sum(each for each in surplus if each < 0),
            doubled=sum(each for each in surplus if each > 0),
        )


@attrs.frozen
class AlarmAudit:
    """The fate of the alarms that one process has set."""

    before: int
    """The number of alarms that fired before the kill."""
    while_down: list[float]
    """Seconds of delay of each alarm that became due while no process was running."""
    after: list[float]
    """Seconds of delay of each alarm that became due while a later process was running."""
    missing: int
    """The number of alarms that never fired, or were acknowledged but lost."""
    doubled: int
    """The number of alarms that fired more than once."""
    early: int

    @property
    def fired(self) -> int:
        """The number of alarms that fired."""
        return self.before + len(self.while_down) + len(self.after)


def audit_alarms(last: Report, process: int, up_at: Mapping[int, float], lost: int) -> AlarmAudit:
    """Audit the alarms that a process has set.

    Args:
        last: The report at the end of the demo.
        process: The id of the process.
        up_at: The time at which each process had started, by its id.
        lost: The number of acknowledged alarms that aren't stored.
    """
    before = doubled = early = 0
    while_down: list[float] = []
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
            while_down.append(fired_at - reminder.due_at)
        else:
            after.append(fired_at - reminder.due_at)
    return AlarmAudit(before, while_down, after, lost, doubled, early)
