"""Alarms, as a table."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from ...storage import AlarmRow
from ..output import add_row, listing
from .shown import at, relative


def alarm_table(rows: Iterable[AlarmRow], now: int, *, of_one: bool = False) -> Table:
    """The alarms, with the names of their objects unless they are ``of_one``."""
    whose = () if of_one else ("type", "id")
    table = listing(*whose, "alarm", "status", "due (UTC)", ">", ">failures", "last error")
    for row in rows:
        alarm = row.alarm
        status: str = row.status
        if row.available_at is not None and row.available_at > max(now, alarm.due_at):
            status += f", again {relative(row.available_at, now)}"
        add_row(
            table,
            *(() if of_one else (alarm.key.type_name, alarm.key.object_id)),
            alarm.key.name,
            status,
            at(alarm.due_at),
            relative(alarm.due_at, now),
            alarm.failures,
            alarm.last_error or "",
        )
    return table
