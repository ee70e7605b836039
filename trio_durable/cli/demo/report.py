"""What the demo has to show in the end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import attrs
from rich.table import Table
from rich.text import Text

from ..output import new_table
from .ledger import AlarmAudit, Audit
from .load import Load


@attrs.frozen
class Outcome:
    """What there is to show in the end. One entry for each kill."""

    loads: list[Load]
    deposits: list[Audit]
    torn: list[int]
    """Accounts that showed half a deposit."""
    alarms: list[AlarmAudit]
    alarms_surplus: int
    """Alarms that nobody requested."""

    @property
    def faults(self) -> dict[str, int]:
        """Promises that were not kept."""
        return {
            "missing": sum(a.missing for a in self.deposits) + sum(a.missing for a in self.alarms),
            "never requested": sum(a.surplus for a in self.deposits) + self.alarms_surplus,
            "torn": sum(self.torn),
            "doubled": sum(audit.doubled for audit in self.alarms),
            "early": sum(audit.early for audit in self.alarms),
        }


def speed_table(loads: Sequence[Load]) -> Table:
    """How fast it was before and after each kill."""
    table = new_table(">life", ">calls/s", ">p50", ">p99")
    for number, load in enumerate(loads, 1):
        table.add_row(
            str(number),
            f"{load.calls_per_second:,.0f}",
            f"{load.percentile(50):.1f} ms",
            f"{load.percentile(99):.1f} ms",
        )
    return table


def survival_table(audits: Sequence[Audit], torn: Sequence[int]) -> Table:
    """What came through each kill."""
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
    for number, (audit, halves) in enumerate(zip(audits, torn, strict=True), 1):
        table.add_row(
            str(number),
            f"{audit.acknowledged:,}",
            f"{audit.recovered:,}",
            fault_count(audit.missing),
            f"{audit.unanswered:,}",
            f"{audit.completed:,}",
            f"{audit.unanswered - audit.completed:,}",
            fault_count(halves),
        )
    return table


def alarm_table(audits: Sequence[AlarmAudit]) -> Table:
    """What became of the alarms that were set before each kill."""
    table = new_table(
        ">kill",
        ">set",
        ">before",
        ">while dead",
        ">late by",
        ">after",
        ">late by",
        ">missing",
        ">doubled",
    )
    for number, audit in enumerate(audits, 1):
        table.add_row(
            str(number),
            f"{audit.fired + audit.missing:,}",
            f"{audit.before:,}",
            f"{len(audit.while_dead):,}",
            f"{min(audit.while_dead, default=0.0):.1f}-{max(audit.while_dead, default=0.0):.1f} s",
            f"{len(audit.after):,}",
            f"{median(audit.after or [0.0]) * 1000:.1f} ms",
            fault_count(audit.missing),
            fault_count(audit.doubled),
        )
    return table


def fault_count(faults: int) -> Text:
    """A count that should be 0."""
    return Text(f"{faults:,}", style="green" if faults == 0 else "bold red")


def verdict(outcome: Outcome) -> Text:
    """The last line."""
    counts = (
        f"kills: {len(outcome.loads)}, "
        f"deposits: {sum(audit.acknowledged for audit in outcome.deposits):,}, "
        f"alarms: {sum(audit.fired for audit in outcome.alarms):,}"
    )
    faults = ", ".join(f"{count:,} {fault}" for fault, count in outcome.faults.items() if count)
    if not faults:
        return Text(f"PASSED: {counts}; none lost, doubled or torn.", style="bold green")
    return Text(f"FAILED: {counts}; of these {faults}", style="bold red")
