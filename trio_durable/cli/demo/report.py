"""Tables and verdict at the end of the demo."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import attrs
from rich.text import Text

from ..output import new_table
from .ledger import AlarmAudit, Audit
from .load import Load

if TYPE_CHECKING:
    from rich.table import Table


@attrs.frozen
class Outcome:
    """The results of the demo, with one entry per kill."""

    loads: list[Load]
    deposits: list[Audit]
    torn: list[int]
    """The number of accounts with half a deposit."""
    alarms: list[AlarmAudit]
    alarms_surplus: int
    """The number of stored alarms that were never requested."""

    @property
    def faults(self) -> dict[str, int]:
        """The number of broken guarantees, by kind."""
        return {
            "missing": sum(a.missing for a in self.deposits) + sum(a.missing for a in self.alarms),
            "never requested": sum(a.surplus for a in self.deposits) + self.alarms_surplus,
            "torn": sum(self.torn),
            "duplicated": sum(audit.doubled for audit in self.alarms),
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


def survival_table(audits: Sequence[Audit], torn: Sequence[int]) -> Table:
    """A table of the changes before each kill, and how many of them are stored."""
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
        f"deposits: {sum(audit.acknowledged for audit in outcome.deposits):,}, "
        f"alarms: {sum(audit.fired for audit in outcome.alarms):,}"
    )
    faults = ", ".join(f"{count:,} {fault}" for fault, count in outcome.faults.items() if count)
    if not faults:
        return Text(f"PASSED: {counts}; none lost, duplicated or torn.", style="bold green")
    return Text(f"FAILED: {counts}; {faults}", style="bold red")
