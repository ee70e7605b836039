"""Formatting of stored values, for people and as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import orjson

from ..._clock import instant
from ..._json import exact
from ..._json.upgrades import SCHEMA_MEMBER
from ..._keys import AlarmKey, ObjectKey
from ...storage import MOVED, AlarmRow
from ..command_line import quoted
from ..output import add_row, excerpt, new_table, printable, quantity

if TYPE_CHECKING:
    from rich.table import Table

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def format_instant(microseconds: int) -> str:
    """An instant for people, in UTC."""
    time = _instant(microseconds)
    if time is None:
        return f"{microseconds} µs since 1970"
    return time.replace(tzinfo=None).isoformat(" ", "seconds")


def json_instant(microseconds: int) -> str | int:
    """An instant for programs, in ISO 8601; the stored number outside the years 1 to 9999."""
    time = _instant(microseconds)
    return microseconds if time is None else time.isoformat()


def _instant(microseconds: int) -> datetime | None:
    try:
        return instant(microseconds)
    except OverflowError:
        return None


def format_duration(microseconds: int) -> str:
    """A duration in its largest unit."""
    seconds = abs(microseconds) // 1_000_000
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit:,} {name}"
    return "0 s"


def format_relative(microseconds: int, now: int) -> str:
    """The distance of an instant from now, such as "3 d ago"."""
    distance = format_duration(microseconds - now)
    return f"{distance} ago" if microseconds <= now else f"in {distance}"


def key_members(key: ObjectKey | AlarmKey) -> dict[str, object]:
    """The JSON members that identify an object or alarm, with ``tenant`` only if it has one."""
    tenant = {"tenant": key.tenant} if key.tenant else {}
    name = {"name": key.name} if isinstance(key, AlarmKey) else {}
    return {**tenant, "type": key.type_name, "id": key.object_id, **name}


def json_member(name: str, data: bytes | None) -> dict[str, object]:
    """A JSON member with ``data`` as it is stored; a string ``name_text`` if it isn't JSON."""
    if data is None:
        return {name: None}
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return {f"{name}_text": data.decode(errors="replace")}
    return {name: orjson.Fragment(data)}


def state_json(key: ObjectKey, revision: int, state: bytes | None) -> dict[str, object]:
    """The stored state of an object as a JSON object."""
    return {**key_members(key), "revision": revision, **json_member("state", state)}


def schema_of(state: bytes) -> object:
    """The schema that ``state`` declares; None if it isn't a JSON object."""
    try:
        data = orjson.loads(state)
    except orjson.JSONDecodeError:
        return None
    return data.get(SCHEMA_MEMBER, 1) if isinstance(data, dict) else None


def pretty_state(state: bytes) -> str:
    """State as indented JSON for reading and editing; unchanged if it isn't JSON."""
    try:
        data = exact.parse(state.decode())
    except ValueError:
        return state.decode(errors="replace")
    return orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()


def printable_lines(text: str) -> str:
    """``text`` with its line breaks, and other control characters escaped."""
    return "\n".join(printable(line) for line in text.split("\n"))


ALARM_COLUMNS = (
    *("tenant", "type", "id", "name", "status", "due_at", "available_at", "failures"),
    *("last_error", "crashes", "recurrence", "payload", "payload_text"),
)
"""The columns of alarms as CSV."""


def alarm_json(row: AlarmRow) -> dict[str, object]:
    """An alarm as a JSON object."""
    alarm = row.alarm
    return {
        **key_members(alarm.key),
        "status": row.status,
        "due_at": json_instant(alarm.due_at),
        "available_at": None if row.available_at is None else json_instant(row.available_at),
        "failures": alarm.failures,
        "last_error": alarm.last_error,
        "crashes": alarm.crashes,
        **({} if alarm.recurrence is None else {"recurrence": alarm.recurrence}),
        **json_member("payload", alarm.payload),
    }


def alarm_table(rows: Iterable[AlarmRow], now: int, *, of_one: bool = False) -> Table:
    """A table of alarms; without type and id if all are ``of_one`` object.

    Each alarm is written as the arguments of ``trio-durable alarms cancel``, with its error below.
    """
    table = new_table("|due (UTC)", "|", "status", "alarm")
    for row in rows:
        alarm = row.alarm
        status: str = row.status
        if row.available_at is not None and row.available_at > max(now, alarm.due_at):
            status += f", again {format_relative(row.available_at, now)}"
        if row.status in ("pending", "overdue") and alarm.recurrence is not None:
            status += ", moved" if alarm.recurrence == MOVED else ", recurring"
        if alarm.failures:
            status += f", {quantity(alarm.failures, 'failure')}"
        if alarm.crashes and row.status != "dead":
            status += f", crashes: {alarm.crashes}"
        key, error = alarm.key, alarm.last_error or ""
        owner = () if of_one else (key.type_name, key.object_id)
        name = quoted(*owner, key.name)
        problem = (error if of_one else excerpt(error),) if error else ()
        due = (format_instant(alarm.due_at), format_relative(alarm.due_at, now))
        add_row(table, *due, status, (name, *problem))
    return table
