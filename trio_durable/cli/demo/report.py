"""Tables and verdict at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import attrs
from rich.text import Text

from ..output import new_table
from .ledger import AlarmAudit, Audit, MoneyAudit
from .load import Load

if TYPE_CHECKING:
    from rich.table import Table


@attrs.frozen
class Outcome:
    """The results of the demo, with one entry per kill."""

    loads: list[Load]
    transfers: list[Audit]
    money: list[MoneyAudit]
    """One entry more: the last is of the end, when all messages have arrived."""
    alarms: list[AlarmAudit]
    alarms_surplus: int
    """The number of stored alarms that were never requested."""

    @property
    def faults(self) -> dict[str, int]:
        """The number of broken guarantees, by kind."""
        missing = sum(audit.missing for audit in self.transfers)
        missing += sum(audit.missing for audit in self.money)
        missing += sum(audit.missing for audit in self.alarms)
        doubled = sum(audit.doubled for audit in self.money)
        doubled += sum(audit.doubled for audit in self.alarms)
        return {
            "missing": missing,
            "never requested": sum(a.surplus for a in self.transfers) + self.alarms_surplus,
            "torn": sum(audit.bank.torn for audit in self.money),
            "duplicated": doubled,
            "sums off": sum(audit.off_by != 0 for audit in self.money),
            "undelivered": self.money[-1].bank.in_messages + self.money[-1].bank.in_dead_letters,
            "early": sum(audit.early for audit in self.alarms),
        }


def speed_table(loads: Sequence[Load]) -> Table:
    """A table of rates and latencies, with a row per process."""
    table = new_table(">process", ">calls/s", ">p50", ">p99")
    for number, load in enumerate(loads, 1):
        table.add_row(
            str(number),
            f"{load.calls_per_second:,.0f}",
            f"{load.percentile(50):.1f} ms",
            f"{load.percentile(99):.1f} ms",
        )
    return table


def survival_table(audits: Sequence[Audit], money: Sequence[MoneyAudit]) -> Table:
    """A table of the transfers before each kill, and how many of them are stored."""
    table = new_table(
        ">kill",
        ">acknowledged",
        ">found again",
        ">missing",
        ">in flight",
        ">whole",
        ">not at all",
        ">half",
    )
    for number, (audit, found) in enumerate(zip(audits, money[:-1], strict=True), 1):
        table.add_row(
            str(number),
            f"{audit.acknowledged:,}",
            f"{audit.recovered:,}",
            fault_count(audit.missing),
            f"{audit.unanswered:,}",
            f"{audit.completed:,}",
            f"{audit.unanswered - audit.completed:,}",
            fault_count(found.bank.torn),
        )
    return table


def money_table(audits: Sequence[MoneyAudit]) -> Table:
    """A table of the money after each kill and at the end, and where it is."""
    table = new_table(
        ">kill",
        ">in accounts",
        ">on the way",
        ">dead letters",
        ">sum",
        ">lost",
        ">twice",
    )
    for number, audit in enumerate(audits, 1):
        table.add_row(
            str(number) if number < len(audits) else "end",
            f"{audit.bank.in_accounts:,}",
            f"{audit.bank.in_messages:,}",
            f"{audit.bank.in_dead_letters:,}",
            Text(f"{audit.bank.total:,}", style="green" if audit.off_by == 0 else "bold red"),
            fault_count(audit.missing),
            fault_count(audit.doubled),
        )
    return table


def alarm_table(audits: Sequence[AlarmAudit]) -> Table:
    """A table of the alarms that were set before each kill, and when they fired."""
    table = new_table(
        ">kill",
        ">set",
        ">before",
        ">while down",
        ">late by",
        ">after",
        ">late by",
        ">missing",
        ">twice",
    )
    for number, audit in enumerate(audits, 1):
        table.add_row(
            str(number),
            f"{audit.fired + audit.missing:,}",
            f"{audit.before:,}",
            f"{len(audit.while_down):,}",
            f"{min(audit.while_down, default=0.0):.1f}-{max(audit.while_down, default=0.0):.1f} s",
            f"{len(audit.after):,}",
            f"{median(audit.after or [0.0]) * 1000:.1f} ms",
            fault_count(audit.missing),
            fault_count(audit.doubled),
        )
    return table


def fault_count(faults: int) -> Text:
    """A count that should be 0, in red if it isn't."""
    return Text(f"{faults:,}", style="green" if faults == 0 else "bold red")


def verdict(outcome: Outcome) -> Text:
    """The last line: PASSED or FAILED, with the counts."""
    counts = (
        f"kills: {len(outcome.loads)}, "
        f"transfers: {sum(audit.acknowledged for audit in outcome.transfers):,}, "
        f"alarms: {sum(audit.fired for audit in outcome.alarms):,}"
    )
    faults = ", ".join(f"{count:,} {fault}" for fault, count in outcome.faults.items() if count)
    if not faults:
        return Text(f"PASSED: {counts}; none lost, duplicated or torn.", style="bold green")
    return Text(f"FAILED: {counts}; {faults}", style="bold red")
